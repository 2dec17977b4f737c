"""Keys of the platform's older form: their clients go on as before, and revoking one ends what it holds at once."""

from __future__ import annotations

import asyncio

from proxy.keys.changes import KeyChanges
from proxy.keys.exports import ExportedKey
from proxy.keys.imports import import_keys
from proxy.keys.legacy import LegacyToken
from proxy.keys.rights import form_operator
from proxy.server import Proxy
from tests.records import form_legacy_token
from tests.staging import GUARD_SECONDS, INITIALIZE, Stage, Wire

OLD, OTHER, NEVER_IMPORTED = (form_legacy_token(seed) for seed in (10**39 + 1, 10**39 + 2, 10**39 + 3))
OPERATOR = form_operator("test")


async def take_over(stage: Stage, *tokens: LegacyToken) -> list[str]:
    """Import these; the ids they have here."""
    for token in tokens:
        stage.note_secret(token.text)
    keys = [
        ExportedKey(number, token.digest, f"old {number}", "ada", ("agent:list", "workflow:run"))
        for number, token in enumerate(tokens)
    ]
    imported = await import_keys(
        stage.database, keys, issuer="local", default_tier="pro", actor="test", source="", dry_run=False,
        advance=lambda _: None,
    )  # fmt: skip
    return [str(one.id) for one in imported]


async def open_stream(wire: Wire, token: LegacyToken) -> asyncio.Task[bytes]:
    """A session and its stream, as a client of the platform holds them; what came until it ended."""
    opened = await wire.post(token.text, INITIALIZE)
    await opened.read()
    assert opened.status == 200
    stream = await wire.request("GET", token.text, **{"Mcp-Session-Id": opened.headers["Mcp-Session-Id"]})
    assert stream.status == 200
    return asyncio.create_task(stream.read())


async def test_revoking_an_imported_key_ends_its_stream_and_no_other(stage: Stage, proxy: Proxy, wire: Wire) -> None:
    mine, _ = await take_over(stage, OLD, OTHER)
    ends, goes_on = await open_stream(wire, OLD), await open_stream(wire, OTHER)
    async with asyncio.timeout(GUARD_SECONDS):
        await KeyChanges(stage.database, stage.hasher).revoke(OPERATOR, mine, stage.policy)
        await ends
        refused = await wire.post(OLD.text, INITIALIZE)
        assert (refused.status, (await refused.json())["error"]["data"]["reason"]) == (401, "key_revoked")
        assert await wire.call(OTHER.text, "aegis.agent.list") == 200
        assert not goes_on.done()
        await stage.sql("DELETE FROM legacy_digests WHERE digest = $1", OTHER.digest)
        await goes_on
        assert await wire.call(OTHER.text, "aegis.agent.list") == 401


async def test_what_was_refused_a_moment_ago_is_let_in_once_it_is_imported(
    stage: Stage, proxy: Proxy, wire: Wire
) -> None:
    assert await wire.call(OLD.text, "aegis.agent.list") == 401
    await take_over(stage, OLD)
    async with asyncio.timeout(GUARD_SECONDS):
        while await wire.call(OLD.text, "aegis.agent.list") != 200:
            await asyncio.sleep(0.01)
    assert await wire.call(NEVER_IMPORTED.text, "aegis.agent.list") == 401


async def test_rotation_gives_it_a_token_of_the_new_form_and_the_old_one_ends_with_its_stream(
    stage: Stage, proxy: Proxy, wire: Wire
) -> None:
    (key_id,) = await take_over(stage, OLD)
    stream = await open_stream(wire, OLD)
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(OPERATOR, key_id, stage.policy, grace="1h")
    stage.note_secret(rotated.token)
    assert await wire.call(rotated.token, "aegis.agent.list") == 200
    assert await wire.call(OLD.text, "aegis.agent.list") == 200
    assert not stream.done()
    async with asyncio.timeout(GUARD_SECONDS):
        await stage.sql("UPDATE legacy_digests SET not_after = clock_timestamp()")
        await stream
    refused = await wire.post(OLD.text, INITIALIZE)
    assert (await refused.json())["error"]["data"]["reason"] == "secret_retired"
    assert await wire.call(rotated.token, "aegis.agent.list") == 200
