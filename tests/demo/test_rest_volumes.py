"""Volumes by REST: what is kept is what came, however large, and nothing of it is held in memory."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil  # type: ignore[import-untyped]
import pytest

from proxy.demo.sample_platform import Platform
from tests.demo.callers import GUARD_SECONDS, Rest

ROOT = Path(__file__).parents[2]
MiB = 1 << 20
SERVER = """
import asyncio, sys
from pathlib import Path
from proxy.demo.sample_api import run_sample_api
from proxy.demo.sample_platform import Platform

async def main():
    async with run_sample_api(Platform(Path(sys.argv[1]))) as api:
        print(api.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""
"""The API in a process of its own, until its input ends: its memory is its own, too."""


def list_stored(platform: Platform) -> list[bytes]:
    return [path.read_bytes() for path in platform.directory.iterdir()]


async def download(rest: Rest, path: str, **headers: str) -> tuple[int, bytes, str]:
    url = f"{rest.url}/v1/volumes/reports/files/download"
    async with rest.http.get(url, params={"path": path}, headers=headers) as answer:
        assert answer.headers["Content-Disposition"] == "attachment"
        return answer.status, await answer.read(), answer.content_type


async def test_a_volume_is_made_renamed_resized_and_deleted(rest: Rest) -> None:
    made = await rest.ask("POST", "/v1/volumes", 201, json={"label": "notes", "size_limit_bytes": 100})
    assert (made["label"], made["size_limit_bytes"], made["used_bytes"]) == ("notes", 100, 0)
    path = f"/v1/volumes/{made['id']}"
    assert await rest.ask("GET", path) == made
    assert (await rest.ask("GET", "/v1/volumes"))["volumes"][-1] == made
    changed = await rest.ask("PATCH", path, json={"label": "papers", "size_limit_bytes": 200})
    assert changed == {**made, "label": "papers", "size_limit_bytes": 200}
    assert await rest.ask("PATCH", path, json={"label": "papers"}) == changed
    assert "already" in await rest.ask_in_vain("PATCH", path, 409, json={"label": "reports"})
    assert "already" in await rest.ask_in_vain("POST", "/v1/volumes", 409, json={"label": "papers"})
    quota = await rest.ask("GET", "/v1/volumes/quota")
    assert (quota["volumes"], quota["limit_bytes"]) == (3, 2 * (1 << 30) + 200)
    assert await rest.ask("DELETE", path) == {"deleted": made["id"]}
    assert "there is no volume" in await rest.ask_in_vain("GET", path, 404)


async def test_files_are_listed_moved_and_deleted(rest: Rest) -> None:
    path = "/v1/volumes/reports/files"
    assert [each["path"] for each in (await rest.ask("GET", path))["files"]] == ["README.md", "weekly/2026-W46.md"]
    found = await rest.ask("GET", f"{path}?path=weekly&limit=1")
    assert (found["total"], [*found["files"][0]]) == (1, ["path", "size_bytes"])
    await rest.ask("POST", f"{path}/mkdir?path=old", 201)
    await rest.ask("POST", f"{path}/mkdir", 201, json={"path": "older"})
    await rest.ask("POST", f"{path}/move", json={"from": "weekly", "to": "old/weekly"})
    assert "there is no file" in await rest.ask_in_vain("POST", f"{path}/move", 404, json={"from": "weekly", "to": "x"})
    assert "there is a file" in await rest.ask_in_vain("POST", f"{path}/move", 409, json={"from": "old", "to": "older"})
    listed = [each["path"] for each in (await rest.ask("GET", path))["files"]]
    assert listed == ["README.md", "old/", "old/weekly/2026-W46.md", "older/"]
    assert await rest.ask("DELETE", f"{path}?path=old") == {"deleted": ["old/weekly/2026-W46.md"]}
    assert "there is no file" in await rest.ask_in_vain("GET", f"{path}/download?path=old/weekly/2026-W46.md", 404)
    for method, verb in [("GET", "/download"), ("DELETE", ""), ("POST", "/upload")]:
        assert "'path' is needed" in await rest.ask_in_vain(method, f"{path}{verb}", 400)


async def test_what_is_uploaded_can_be_downloaded(rest: Rest, platform: Platform) -> None:
    content = bytes(range(256)) * 100
    path = "/v1/volumes/reports/files/upload?path=/new/data.json"
    stored = await rest.ask("POST", path, data=content)
    assert stored == {
        "path": "/new/data.json",
        "size_bytes": len(content),
        "volume_id": "reports",
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert await download(rest, "new/data.json") == (200, content, "application/json")
    assert await download(rest, "new/data.json", Range="bytes=1-3") == (206, content[1:4], "application/json")
    assert (await download(rest, "README.md"))[1:] == (b"Reports, one file a week.\n", "text/markdown")
    await rest.ask("POST", path, data=b"")
    assert await download(rest, "new/data.json") == (200, b"", "application/json")
    assert list_stored(platform) == [b""]
    await rest.ask("DELETE", "/v1/volumes/reports")
    assert list_stored(platform) == []


async def test_a_form_is_an_upload_with_its_path_in_a_field_or_in_the_query(rest: Rest) -> None:
    upload = "/v1/volumes/reports/files/upload"
    content = b"--boundary\r\n" * 50_000
    form = aiohttp.FormData({"path": "by-field"})
    form.add_field("file", content, filename="ignored.txt")
    form.add_field("file", b"not this one", filename="second.txt")
    assert (await rest.ask("POST", upload, data=form))["path"] == "by-field"
    form = aiohttp.FormData()
    form.add_field("file", content, filename="ignored.txt")
    assert (await rest.ask("POST", f"{upload}?path=by-query", data=form))["size_bytes"] == len(content)
    for path in ("by-field", "by-query"):
        assert (await download(rest, path))[1] == content


@pytest.mark.parametrize(
    ("content_type", "body", "why"),
    [
        ("multipart/form-data", b"", "cannot be read"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "needs a file"),
        ("multipart/form-data; boundary=x", b"no form", "cannot be read"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ndata\r\n--x--\r\n',
            "needs a file, and before it",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\n\xff\r\n--x--\r\n',
            "cannot be read",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="path"\r\n\r\na\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nit does not end',
            "cannot be read",
        ),
    ],
)
async def test_a_form_that_makes_no_sense_is_refused(
    rest: Rest, platform: Platform, content_type: str, body: bytes, why: str
) -> None:
    headers = {"Content-Type": content_type}
    upload = "/v1/volumes/reports/files/upload"
    assert why in await rest.ask_in_vain("POST", upload, 400, data=body, headers=headers)
    assert list_stored(platform) == []


async def test_what_does_not_fit_is_refused_before_it_is_read_or_as_soon_as_it_shows(
    rest: Rest, platform: Platform
) -> None:
    volume = (await rest.ask("POST", "/v1/volumes", 201, json={"label": "tiny", "size_limit_bytes": 10}))["id"]
    upload, taken = f"/v1/volumes/{volume}/files/upload?path=x", 0

    async def give() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 10

    assert "quota of 10 bytes" in await rest.ask_in_vain("POST", upload, 409, data=b"far too long")
    async with asyncio.timeout(GUARD_SECONDS), aiohttp.ClientSession() as http:
        with_no_end = http.post(f"{rest.url}{upload}", data=give())
        try:
            async with with_no_end as answer:
                assert answer.status == 409
        except aiohttp.ClientConnectionError:  # it hung up on us while we were still sending: also a no
            assert taken > 1
    assert list_stored(platform) == []
    for path in ("..", "a/../b", "%00"):
        query = f"/v1/volumes/{volume}/files/upload?path={path}"
        assert "not a path" in await rest.ask_in_vain("POST", query, 400, data=b"x")


async def test_what_is_announced_as_too_large_is_refused_before_it_comes(rest: Rest) -> None:
    host, port = rest.url.removeprefix("http://").split(":")
    async with asyncio.timeout(GUARD_SECONDS):
        reader, writer = await asyncio.open_connection(host, int(port))
        request = f"POST /v1/volumes/reports/files/upload?path=x HTTP/1.1\r\nHost: {host}\r\nContent-Length: {1 << 40}"
        writer.write(f"{request}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 409 ")
        writer.close()


async def test_an_upload_whose_sender_leaves_is_forgotten(rest: Rest, platform: Platform) -> None:
    halfway = asyncio.Event()

    async def give() -> AsyncIterator[bytes]:
        yield b"some"
        halfway.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(GUARD_SECONDS):
        async with aiohttp.ClientSession() as http:
            path = "/v1/volumes/reports/files/upload?path=x"
            upload = asyncio.create_task(http.post(f"{rest.url}{path}", data=give()))
            await halfway.wait()
            while list_stored(platform) == []:
                await asyncio.sleep(0)
            upload.cancel()
            await asyncio.wait({upload})
        while list_stored(platform) != []:
            await asyncio.sleep(0)
    assert "there is no file" in await rest.ask_in_vain("GET", "/v1/volumes/reports/files/download?path=x", 404)


async def test_64_mib_go_up_and_come_down_and_the_server_grows_by_less_than_a_quarter_of_it(tmp_path: Path) -> None:
    block = hashlib.sha256(b"block").digest() * (MiB // 32)

    async def give() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield block

    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVER, str(tmp_path), cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        async with asyncio.timeout(GUARD_SECONDS * 3), aiohttp.ClientSession() as http:
            url = (await server.stdout.readline()).decode().strip()
            rest, process = Rest(http, url), psutil.Process(server.pid)
            await rest.ask("POST", "/v1/volumes/reports/files/upload?path=warm-up", data=block)
            before = process.memory_info().rss
            stored = await rest.ask("POST", "/v1/volumes/reports/files/upload?path=big", data=give())
            assert stored["size_bytes"] == 64 * MiB
            digest, most = hashlib.sha256(), process.memory_info().rss
            async with http.get(f"{url}/v1/volumes/reports/files/download?path=big") as answer:
                async for chunk in answer.content.iter_any():
                    digest.update(chunk)
                    most = max(most, process.memory_info().rss)
        assert digest.hexdigest() == stored["sha256"]
        assert most - before < 16 * MiB
    finally:
        server.stdin.close()
        assert await server.wait() == 0
