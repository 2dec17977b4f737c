"""Volumes and their files."""

from __future__ import annotations

from aegis_sdk._async.lists import AsyncListing
from aegis_sdk._async.resource import AsyncResource
from aegis_sdk.calls import Call, delete, form_path, get, patch, post
from aegis_sdk.models import FilePage, Quota, UploadedFile, Volume, VolumeFile, VolumePage
from aegis_sdk.paging import form_counted_page
from aegis_sdk.pieces import AsyncUploadable, form_async_pieces


class AsyncVolumes(AsyncResource):
    """`client.volumes`. Paths are names with slashes between them."""

    def list(self, *, page_size: int | None = None) -> AsyncListing[Volume]:
        """Takes `volume:list`."""
        call = get(form_path("volumes"), {"limit": page_size})
        return AsyncListing(self._transport, call, VolumePage, lambda page: form_counted_page(page, page.volumes))

    async def quota(self) -> Quota:
        """What all volumes use together. Takes `volume:list`."""
        return await self._transport.fetch(get(form_path("volumes", "quota")), Quota)

    async def get(self, volume_id: str) -> Volume:
        """Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        return await self._transport.fetch(get(form_path("volumes", volume_id)), Volume)

    async def create(self, label: str, *, size_limit_bytes: int | None = None) -> Volume:
        """Takes `volume:create`."""
        call = post(form_path("volumes"), {"label": label, "size_limit_bytes": size_limit_bytes})
        return await self._transport.fetch(call, Volume)

    async def update(self, volume_id: str, *, label: str | None = None, size_limit_bytes: int | None = None) -> Volume:
        """Another label, another limit, or both. Takes `volume:update` (`volume:update:VOLUME` is enough)."""
        call = patch(form_path("volumes", volume_id), {"label": label, "size_limit_bytes": size_limit_bytes})
        return await self._transport.fetch(call, Volume)

    async def delete(self, volume_id: str) -> None:
        """With all its files. Takes `volume:delete` (`volume:delete:VOLUME` is enough)."""
        await self._transport.ask(delete(form_path("volumes", volume_id)))

    def list_files(
        self, volume_id: str, *, path: str | None = None, page_size: int | None = None
    ) -> AsyncListing[VolumeFile]:
        """Files and directories, below `path` or all. Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        call = get(form_path("volumes", volume_id, "files"), {"path": path, "limit": page_size})
        return AsyncListing(self._transport, call, FilePage, lambda page: form_counted_page(page, page.files))

    async def download(self, volume_id: str, path: str) -> bytes:
        """A file's content. Takes `volume:read` (`volume:read:VOLUME` is enough)."""
        answer = await self._transport.ask(get(form_path("volumes", volume_id, "files", "download"), {"path": path}))
        return answer.content

    async def upload(self, volume_id: str, path: str, content: AsyncUploadable) -> UploadedFile:
        """Write a file: a text (as UTF-8), bytes, an open binary file, or pieces as they come, which are never held.

        Takes `volume:write` (`volume:write:VOLUME` is enough).
        """
        call = Call(
            "POST",
            form_path("volumes", volume_id, "files", "upload"),
            {"path": path},
            {"Content-Type": "application/octet-stream"},
            content=form_async_pieces(content),
        )
        return await self._transport.fetch(call, UploadedFile)

    async def delete_file(self, volume_id: str, path: str) -> None:
        """A file, or a directory and what is in it. Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        await self._transport.ask(delete(form_path("volumes", volume_id, "files"), {"path": path}))

    async def make_directory(self, volume_id: str, path: str) -> None:
        """Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        await self._transport.ask(post(form_path("volumes", volume_id, "files", "mkdir"), {"path": path}))

    async def move(self, volume_id: str, source: str, target: str) -> None:
        """A file or directory, to another name. Takes `volume:write` (`volume:write:VOLUME` is enough)."""
        call = post(form_path("volumes", volume_id, "files", "move"), {"from": source, "to": target})
        await self._transport.ask(call)
