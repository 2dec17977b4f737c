"""Volumes and their files over REST: made, listed, moved, and uploads and downloads of any size.  [io]

In: requests. Out: what the platform says. A body goes to disk as it comes and comes back as it lies there: neither is
ever held. Refuses to know: where on the disk.
"""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from http import HTTPStatus

from aiohttp import BodyPartReader, MultipartReader, web
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.rest_answers import Json, answer_page, read_json, take_size, take_text
from proxy.demo.sample_platform import Platform
from proxy.demo.sample_storage import LIMIT_BYTES, StoredFile, Volume, parse_path, store_upload

CHUNK_BYTES = 1 << 18
PATH_BYTES = 4096


class VolumeRoutes:
    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def list_routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/volumes", self.list_volumes),
            web.post("/v1/volumes", self.create),
            web.get("/v1/volumes/quota", self.get_quota),
            web.get("/v1/volumes/{id}", self.get),
            web.patch("/v1/volumes/{id}", self.update),
            web.delete("/v1/volumes/{id}", self.delete),
            web.get("/v1/volumes/{id}/files", self.list_files),
            web.delete("/v1/volumes/{id}/files", self.delete_path),
            web.get("/v1/volumes/{id}/files/download", self.download),
            web.post("/v1/volumes/{id}/files/upload", self.upload),
            web.post("/v1/volumes/{id}/files/mkdir", self.make_directory),
            web.post("/v1/volumes/{id}/files/move", self.move),
        ]

    def find(self, request: web.Request) -> Volume:
        return self.platform.get_volume(request.match_info["id"])

    async def list_volumes(self, request: web.Request) -> web.StreamResponse:
        return answer_page(request, "volumes", list(self.platform.volumes.values()), Volume.describe)

    async def create(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        label, size_limit_bytes = take_text(body, "label"), take_size(body, "size_limit_bytes", LIMIT_BYTES)
        volume = self.platform.create_volume(label, size_limit_bytes)
        return web.json_response(volume.describe(), status=HTTPStatus.CREATED)

    async def get_quota(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.platform.describe_quota())

    async def get(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.find(request).describe())

    async def update(self, request: web.Request) -> web.StreamResponse:
        """Another label, another quota, or both."""
        volume, body = self.find(request), await read_json(request)
        size_limit_bytes = take_size(body, "size_limit_bytes", volume.size_limit_bytes)
        if "label" in body:
            self.platform.rename_volume(volume.id, take_text(body, "label"))
        volume.size_limit_bytes = size_limit_bytes
        return web.json_response(volume.describe())

    async def delete(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"deleted": self.platform.delete_volume(request.match_info["id"]).id})

    async def list_files(self, request: web.Request) -> web.StreamResponse:
        volume = self.find(request)
        names = volume.list_names(request.query.get("path", "/"))
        return answer_page(request, "files", names, lambda name: describe_file(name, volume.files.get(name)))

    async def delete_path(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"deleted": self.find(request).delete(take_path(request))})

    async def download(self, request: web.Request) -> web.StreamResponse:
        path = take_path(request)
        file = self.find(request).get_file(path)
        # An attachment: what somebody uploaded is not a page of the host it comes from.
        media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers = {"Content-Type": media_type, "Content-Disposition": "attachment"}
        if isinstance(file.content, bytes):
            return web.Response(body=file.content, headers=headers)
        return web.FileResponse(file.content, headers=headers)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        """The body itself, or the first file of a form; where to is said by the query, or by a field before it."""
        volume = self.find(request)
        if request.content_type.startswith("multipart/"):
            (path, chunks), announced = await open_form(request), 0
        else:
            path, chunks, announced = take_path(request), request.content.iter_any(), request.content_length or 0
        volume.check_room(parse_path(path), announced)
        file = await store_upload(chunks, self.platform.directory, lambda size: volume.check_room(path, size))
        volume.put(path, file)
        return web.json_response(describe_file(path, file) | {"volume_id": volume.id, "sha256": file.sha256})

    async def make_directory(self, request: web.Request) -> web.StreamResponse:
        path = request.query.get("path") or take_text(await read_json(request), "path")
        self.find(request).make_directory(path)
        return web.json_response({"path": path}, status=HTTPStatus.CREATED)

    async def move(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        source, target = take_text(body, "from"), take_text(body, "to")
        self.find(request).move(source, target)
        return web.json_response({"from": source, "to": target})


def describe_file(path: str, file: StoredFile | None) -> Json:
    """A file; or a directory, of which there is nothing to say."""
    return {"path": path} if file is None else {"path": path, "size_bytes": file.size_bytes}


def take_path(request: web.Request) -> str:
    """The path in the query. Raises ToolError."""
    path = request.query.get("path")
    if not path:
        raise ToolError("'path' is needed in the query: which file")
    return path


async def open_form(request: web.Request) -> tuple[str, AsyncIterator[bytes]]:
    """Where a form's file is to go, and its content. Raises ToolError."""
    path = request.query.get("path")
    try:
        form = await request.multipart()
        async for part in form:
            if not isinstance(part, BodyPartReader):
                continue
            if part.filename is not None or part.name == "file":
                if not path:
                    break
                return path, read_part(form, part)
            if part.name == "path":
                path = (await part.read_chunk(PATH_BYTES)).decode()
    except ValueError as error:
        raise ToolError(f"the form cannot be read: {error}") from error
    raise ToolError("a form needs a file, and before it, or in the query, a 'path'")


async def read_part(form: MultipartReader, part: BodyPartReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await part.read_chunk(CHUNK_BYTES):
            yield chunk
        await form.next()  # raises unless a boundary follows: aiohttp takes the end of the body for the end of the part
    except ValueError as error:
        raise ToolError(f"the form cannot be read: {error}") from error
