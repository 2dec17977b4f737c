"""What is sent for keys, byte by byte, and what becomes of a secret."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from aegis_sdk import SecretNotShownError
from aegis_sdk.models import Constraints
from tests.hostile_origin import HostileOrigin, answering
from tests.sdk.test_transport import client_of, form

KEY: dict[str, Any] = {
    **dict.fromkeys(
        ("preset", "expires_at", "parent_id", "old_secret_until", "revoked_at", "revoked_by", "revoked_reason",
         "last_used_at", "last_used", "last_refused", "old_secret_last_used_at")
    ),
    **{"id": "000000000001", "name": "n", "owner": "ada", "issuer": "local", "tenant_id": "t", "tier": "pro"},
    **{"scopes": ["agent:list"], "status": "active", "constraints": {}, "version": 1},
    **{"created_at": "2026-11-29T00:00:00Z", "created_by": "key:x"},
}  # fmt: skip
MINTED = {**KEY, "key": "aegis_000000000001_S3cret"}


def read_body(request: bytes) -> Any:
    return json.loads(request.partition(b"\r\n\r\n")[2])


def find_header(request: bytes, name: str) -> bytes | None:
    found = re.search(rb"\r\n" + name.encode() + rb": (.*?)\r\n", request, re.IGNORECASE)
    return found and found[1]


async def test_all_attempts_of_one_minting_are_one_and_the_next_is_another() -> None:
    busy = form(503, {"error": "busy"})
    answers = answering(busy, busy, form(201, MINTED), form(201, MINTED))
    async with HostileOrigin(answers) as origin, client_of(origin.port) as client:
        minted = await client.keys.mint("n", scopes=["agent:list"])
        await client.keys.mint("n", preset="read-only")
    assert minted.key == "aegis_000000000001_S3cret"
    once, again, third, other = (find_header(request, "Idempotency-Key") for request in origin.requests)
    assert once
    assert once == again == third
    assert other not in (None, once)


async def test_a_minted_key_shows_its_secret_to_whoever_asks_for_it_by_name() -> None:
    async with HostileOrigin(answering(form(201, MINTED))) as origin, client_of(origin.port) as client:
        minted = await client.keys.mint("n", preset="read-only")
    assert minted.key.endswith("S3cret")
    assert "S3cret" in minted.model_dump_json()
    assert "S3cret" not in f"{minted} {minted!r} {[minted]}"


async def test_a_replay_is_an_error_that_has_the_key_without_its_secret() -> None:
    replayed = form(200, KEY, "Idempotent-Replay: true")
    async with HostileOrigin(answering(replayed)) as origin, client_of(origin.port) as client:
        for asked in (client.keys.mint("n", preset="read-only"), client.keys.rotate("000000000001")):
            with pytest.raises(SecretNotShownError, match="000000000001") as lost:
                await asked
            assert lost.value.api_key.name == "n"


async def test_what_is_given_is_sent_and_nothing_else() -> None:
    async with HostileOrigin(answering(form(200, MINTED))) as origin, client_of(origin.port) as client:
        await client.keys.mint("n", scopes="agent:list", expires_at=datetime(2027, 1, 1, tzinfo=UTC))
        await client.keys.mint("n", preset="p", expires_in="never", constraints=Constraints(max_calls=2))
        await client.keys.update("000000000001", constraints={}, if_version=7)
        await client.keys.disable("000000000001")
    bodies = [read_body(request) for request in origin.requests]
    assert bodies == [
        {"name": "n", "scopes": ["agent:list"], "expires_at": "2027-01-01T00:00:00Z"},
        {"name": "n", "preset": "p", "expires_in": "never", "constraints": {"max_calls": 2}},
        {"constraints": {}},
        {},
    ]
    assert find_header(origin.requests[2], "If-Match") == b'"7"'
    assert find_header(origin.requests[1], "If-Match") is None


async def test_a_change_is_not_tried_again_and_switching_is() -> None:
    busy = form(503, {"error": "busy"})
    async with HostileOrigin(answering(busy, busy, form(200, KEY))) as origin, client_of(origin.port) as client:
        with pytest.raises(Exception, match="busy"):
            await client.keys.update("000000000001", name="m")
        assert len(origin.requests) == 1
        assert (await client.keys.enable("000000000001")).name == "n"
    assert len(origin.requests) == 3


async def test_keys_are_looked_for_by_several_words() -> None:
    page = {"api_keys": [KEY], "next_cursor": None}
    async with HostileOrigin(answering(form(200, page))) as origin, client_of(origin.port) as client:
        listing = client.keys.list(query="a&b", status=["active", "expired"], owner="ada", page_size=5)
        assert [key.id async for key in listing] == ["000000000001"]
        await client.keys.list(status="active").first_page()
    assert origin.requests[0].startswith(
        b"GET /v1/api-keys?q=a%26b&status=active%2Cexpired&owner=ada&limit=5 HTTP/1.1\r\n"
    )
    assert origin.requests[1].startswith(b"GET /v1/api-keys?status=active HTTP/1.1\r\n")


async def test_who_asks_who_they_are_sends_no_body() -> None:
    identity: dict[str, Any] = {
        "user_id": "ada", "tenant_id": "t", "aegis_role": None, "scopes": [], "zaru_tier": "pro",
        "key_id": "000000000001", "name": "n", "expires_at": None,
    }  # fmt: skip
    async with HostileOrigin(answering(form(200, identity))) as origin, client_of(origin.port) as client:
        assert (await client.whoami()).user_id == "ada"
    assert find_header(origin.requests[0], "Content-Length") in (None, b"0")
    assert find_header(origin.requests[0], "Content-Type") is None
