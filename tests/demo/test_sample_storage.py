"""Volumes by themselves: paths, quotas, and files that come and go on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError

from proxy.demo.sample_faults import InTheWay, Missing
from proxy.demo.sample_storage import READABLE_BYTES, StoredFile, Volume, parse_path, store_text, store_upload
from tests.demo.callers import GUARD_SECONDS


def take_any_size(size_bytes: int) -> None:
    """There is room."""


async def upload(directory: Path, *chunks: bytes) -> StoredFile:
    async def give() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return await store_upload(give(), directory, take_any_size)


@given(st.text(max_size=30))
def test_a_path_is_names_between_slashes_or_an_error(path: str) -> None:
    try:
        name = parse_path(path)
    except ToolError:
        return
    assert name == path.strip("/")
    assert not {"", ".", ".."} & {*name.split("/")}
    assert parse_path(name) == name


@pytest.mark.parametrize("path", ["", "/", "..", "a/../b", "a//b", "./a", "a\nb", "a\0"])
def test_such_a_path_is_refused(path: str) -> None:
    with pytest.raises(ToolError, match="is not a path of a file"):
        parse_path(path)


def test_what_is_listed_read_moved_and_deleted_is_what_was_put() -> None:
    volume = Volume("notes")
    for path in ("/a/one", "a/b/two", "ab"):
        volume.put(path, store_text(path))
    volume.make_directory("a/empty")
    assert volume.list_names("/") == ["a/b/two", "a/empty/", "a/one", "ab"]
    volume.move("/a", "z/y")
    assert volume.list_names("") == ["ab", "z/y/b/two", "z/y/empty/", "z/y/one"]
    assert volume.get_file("z/y/one").read_text() == "/a/one"
    assert volume.delete("z/y") == ["z/y/one", "z/y/b/two"]
    assert (volume.list_names(""), volume.used_bytes) == (["ab"], 2)
    with pytest.raises(Missing):
        volume.get_file("z/y/one")
    with pytest.raises(Missing):
        volume.delete("z")


def test_nothing_is_put_where_something_else_is() -> None:
    volume = Volume("notes")
    volume.put("a", store_text("a"))
    volume.make_directory("d")
    with pytest.raises(InTheWay, match="is a directory"):
        volume.put("d", store_text("d"))
    with pytest.raises(InTheWay, match="is a file"):
        volume.make_directory("a")
    with pytest.raises(InTheWay, match="there is a file or directory"):
        volume.move("d", "a")
    for target in ("d", "d/e"):
        with pytest.raises(ToolError, match="into itself"):
            volume.move("d", target)


def test_a_quota_counts_what_is_replaced_only_once() -> None:
    volume = Volume("notes", size_limit_bytes=10)
    volume.put("a", store_text("12345678"))
    volume.put("a", store_text("1234567890"))
    with pytest.raises(InTheWay, match="has a quota of 10 bytes"):
        volume.put("b", store_text("1"))


async def test_an_upload_lies_on_disk_until_it_is_replaced_deleted_or_refused(tmp_path: Path) -> None:
    volume = Volume("notes", size_limit_bytes=10)
    first = await upload(tmp_path, b"hel", b"lo")
    assert (first.size_bytes, first.read_text(), first.sha256) == (5, "hello", store_text("hello").sha256)
    volume.put("a", first)
    volume.put("a", await upload(tmp_path, b"bye"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"bye"]
    with pytest.raises(InTheWay):
        volume.put("b", await upload(tmp_path, b"far too long"))
    with pytest.raises(ToolError, match="not a path"):
        volume.put("..", await upload(tmp_path, b""))
    assert len([*tmp_path.iterdir()]) == 1
    volume.clear()
    assert [*tmp_path.iterdir()] == []


async def test_an_upload_that_fails_or_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    halfway = asyncio.Event()

    async def give_some() -> AsyncIterator[bytes]:
        yield b"some"
        halfway.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(GUARD_SECONDS):
        given_up = asyncio.create_task(store_upload(give_some(), tmp_path, take_any_size))
        await halfway.wait()
        assert len([*tmp_path.iterdir()]) == 1
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up

    def refuse(size_bytes: int) -> None:
        raise InTheWay("full")

    with pytest.raises(InTheWay, match="full"):
        await store_upload(give_some(), tmp_path, refuse)
    assert [*tmp_path.iterdir()] == []


async def test_only_texts_of_a_modest_size_are_read_as_texts(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="not a text"):
        (await upload(tmp_path, b"\xff")).read_text()
    with pytest.raises(ToolError, match="too many to be read as text"):
        (await upload(tmp_path, b"x" * (READABLE_BYTES + 1))).read_text()
