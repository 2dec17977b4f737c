"""Volumes and their files."""

from __future__ import annotations

from aegis_sdk._sync.lists import Listing
from aegis_sdk._sync.resource import Resource
from aegis_sdk.calls import Call, delete, form_path, get, patch, post
from aegis_sdk.models import FilePage, Quota, UploadedFile, Volume, VolumeFile, VolumePage
from aegis_sdk.paging import form_counted_page
from aegis_sdk.pieces import Uploadable, form_pieces


class Volumes(Resource):
    """`client.volumes`. Paths are names with slashes between them."""

    def list(self, *, page_size: int | None = None) -> Listing[Volume]:
        """Takes `volume:list`."""
        call = get(form_path("volumes"), {"limit": page_size})
        return Listing(self._transport, call, VolumePage, lambda page: form_counted_page(page, page.volumes))

    def quota(self) -> Quota:
        """What all volumes use together. Takes `volume:list`."""
        return self._transport.fetch(get(form_path("volumes", "quota")), Quota)

    def get(self, volume_id: str) -> Volume:
        """Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        return self._transport.fetch(get(form_path("volumes", volume_id)), Volume)

    def create(self, label: str, *, size_limit_bytes: int | None = None) -> Volume:
        """Takes `volume:create`."""
        call = post(form_path("volumes"), {"label": label, "size_limit_bytes": size_limit_bytes})
        return self._transport.fetch(call, Volume)

    def update(self, volume_id: str, *, label: str | None = None, size_limit_bytes: int | None = None) -> Volume:
        """Another label, another limit, or both. Takes `volume:update` (`volume:update:VOLUME` is enough)."""
        call = patch(form_path("volumes", volume_id), {"label": label, "size_limit_bytes": size_limit_bytes})
        return self._transport.fetch(call, Volume)

    def delete(self, volume_id: str) -> None:
        """With all its files. Takes `volume:delete` (`volume:delete:VOLUME` is enough)."""
        self._transport.ask(delete(form_path("volumes", volume_id)))

    def list_files(
        self, volume_id: str, *, path: str | None = None, page_size: int | None = None
    ) -> Listing[VolumeFile]:
        """Files and directories, below `path` or all. Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        call = get(form_path("volumes", volume_id, "files"), {"path": path, "limit": page_size})
        return Listing(self._transport, call, FilePage, lambda page: form_counted_page(page, page.files))

    def download(self, volume_id: str, path: str) -> bytes:
        """A file's content. Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        answer = self._transport.ask(get(form_path("volumes", volume_id, "files", "download"), {"path": path}))
        return answer.content

    def upload(self, volume_id: str, path: str, content: Uploadable) -> UploadedFile:
        """Write a file: a text (as UTF-8), bytes, an open binary file, or pieces as they come, which are never held.

        Takes `volume:write` (`volume:write:VOLUME` is enough).
        """
        call = Call(
            "POST",
            form_path("volumes", volume_id, "files", "upload"),
            {"path": path},
            {"Content-Type": "application/octet-stream"},
            content=form_pieces(content),
        )
        return self._transport.fetch(call, UploadedFile)

    def delete_file(self, volume_id: str, path: str) -> None:
        """A file, or a directory and what is in it. Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        self._transport.ask(delete(form_path("volumes", volume_id, "files"), {"path": path}))

    def make_directory(self, volume_id: str, path: str) -> None:
        """Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        self._transport.ask(post(form_path("volumes", volume_id, "files", "mkdir"), {"path": path}))

    def move(self, volume_id: str, source: str, target: str) -> None:
        """A file or directory, to another name. Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        call = post(form_path("volumes", volume_id, "files", "move"), {"from": source, "to": target})
        self._transport.ask(call)
