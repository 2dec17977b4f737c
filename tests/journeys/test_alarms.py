"""Secrets that have got out: their owners are told, once, and nobody else can make them worry."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal
from uuid import uuid4

import aiohttp
import pytest

from proxy.alarms import MAX_LOOKING, Alarm, Alarms
from proxy.audit import Audit
from proxy.client_address import parse_client_address
from proxy.clock import SystemClock
from proxy.errors import Reason
from proxy.flushing import Flusher
from proxy.identity import KeyId, OwnerId
from proxy.keys.changes import KeyChanges
from proxy.keys.legacy import LegacyToken
from proxy.keys.minting import MintedKey
from proxy.keys.record import KeyRecord
from proxy.keys.rights import form_operator
from proxy.keys.token import SECRET_LENGTH, Token, form_token
from tests.canary_upstream import CanaryUpstream
from tests.clocks import ManualClock
from tests.ear import Ear
from tests.raw_client import RawAnswer, ask_raw, form_request
from tests.records import form_key_id, form_legacy_token, form_secret_token
from tests.staging import GUARD_SECONDS, Stage
from tests.wire_scene import PING

HERE, THERE = parse_client_address("192.0.2.1"), parse_client_address("192.0.2.2")


async def rotate(stage: Stage, key: MintedKey, grace: Literal["now", "1h"]) -> str:
    changes = KeyChanges(stage.database, stage.hasher)
    rotated = await changes.rotate(form_operator("test"), key.summary.id, stage.policy, grace=grace)
    stage.note_secret(rotated.token)
    return rotated.token


async def read_events(stage: Stage) -> list[tuple[str, str, str, dict[str, Any]]]:
    rows = await stage.database.fetch(
        "SELECT action, key_id, owner_id::text, after::text FROM audit_events WHERE actor LIKE 'proxy:%' ORDER BY id"
    )
    return [(row["action"], row["key_id"], row["owner_id"], json.loads(row["after"])) for row in rows]


async def read_owner(stage: Stage, key: MintedKey) -> str:
    (row,) = await stage.database.fetch("SELECT owner_id::text FROM api_keys WHERE id = $1", key.summary.id)
    return str(row["owner_id"])


def find_warnings(ear: Ear, key: MintedKey) -> list[str]:
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if key.summary.id.encode() in line]
    return [line["event"] for line in lines if line["level"] == "warning"]


async def count_alarms(http: aiohttp.ClientSession, ops: object, alarm: Alarm) -> float:
    async with http.get(f"http://{ops}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    wanted = f'aegis_alarms_total{{alarm="{alarm}"}} '
    return sum(float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted))


async def test_an_old_secret_after_its_grace_alarms_once_and_harms_the_new_one_not(
    stage: Stage, ear: Ear, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:

        async def ask(token: str) -> RawAnswer:
            return await ask_raw(proxy.data_address, form_request(token=token, body=PING))

        assert (await ask(key.token)).status == 200
        new = await rotate(stage, key, "now")
        assert (await ask(new)).status == 200
        for _ in range(3):
            answer = await ask(key.token)
            assert (answer.status, answer.reason) == (401, Reason.SECRET_RETIRED)
            assert (await ask(new)).status == 200
        assert await count_alarms(http, proxy.ops_address, Alarm.SECRET_REPLAYED) == 3
    (event,) = [event for event in await read_events(stage) if event[0] == Alarm.SECRET_REPLAYED]
    assert event[:3] == ("secret.replayed", key.summary.id, await read_owner(stage, key))
    assert (event[3]["address"], event[3]["count"]) == ("127.0.0.1", 1)
    assert find_warnings(ear, key) == ["secret_replayed"]


async def test_inside_the_grace_and_with_a_wrong_secret_there_is_no_alarm(stage: Stage) -> None:
    key = await stage.mint()
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        await rotate(stage, key, "1h")
        wrong = form_token(KeyId(key.summary.id), "S" * SECRET_LENGTH).text
        statuses = [
            (await ask_raw(proxy.data_address, form_request(token=token, body=PING))).status
            for token in (key.token, wrong, key.token)
        ]
        assert statuses == [200, 401, 200]
    assert Alarm.SECRET_REPLAYED not in [event[0] for event in await read_events(stage)]


@pytest.mark.parametrize(
    "target",
    [
        "/mcp/v1?api_key={}",
        "/mcp/v1?x={}",
        "/mcp/v1?next=https%3A%2F%2Fexample.com%2F%3Fkey%3D{}%26a%3Db",
        "/mcp/v1?{}",
        "/settings/api-keys?q={}",
    ],
)
async def test_the_owner_of_a_key_in_a_url_is_told(
    target: str, stage: Stage, ear: Ear, http: aiohttp.ClientSession
) -> None:
    key = await stage.mint()
    target = target.replace("{}", key.token)
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        for _ in range(3):
            answer = await ask_raw(proxy.data_address, form_request("POST", target, token=key.token, body=PING))
            assert answer.status == 400
            if target.startswith("/mcp/"):
                assert answer.reason == Reason.CREDENTIAL_MISPLACED
            else:  # a page, for whoever typed it
                assert b"API key in the URL" in answer.body
                assert key.token.encode() not in answer.body
        assert not canary.connections
        async with asyncio.timeout(GUARD_SECONDS):
            while await count_alarms(http, proxy.ops_address, Alarm.KEY_EXPOSED) < 3:
                pass
    (event,) = await read_events(stage)
    assert event[:3] == ("key.exposed", key.summary.id, await read_owner(stage, key))
    assert event[3] == {"count": 1, "address": "127.0.0.1", "request_id": event[3]["request_id"]}
    assert find_warnings(ear, key) == ["key_exposed"]


async def test_a_key_of_the_older_form_in_a_url_is_told_too(stage: Stage) -> None:
    key, legacy = await stage.mint(), form_legacy_token(3)
    stage.note_secret(legacy.text)
    await stage.sql(
        "INSERT INTO legacy_digests (digest, key_id) VALUES ($1, $2)", legacy.digest, key.summary.id
    )  # fmt: skip
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        await ask_raw(proxy.data_address, form_request("GET", f"/mcp/v1?token={legacy.text}"))
    assert [event[:2] for event in await read_events(stage)] == [("key.exposed", key.summary.id)]


async def test_whoever_knows_only_a_public_id_can_make_nobody_worry(stage: Stage) -> None:
    key = await stage.mint()
    wrong = form_token(KeyId(key.summary.id), "S" * SECRET_LENGTH).text
    guesses = [
        wrong,
        form_secret_token(form_key_id(9)).text,
        key.token[:-1] + "-",
        f"aegis_{key.summary.id}_" + "0" * 49,
    ]
    async with CanaryUpstream() as canary, stage.proxy(canary.url) as proxy:
        for guess in guesses:
            answer = await ask_raw(proxy.data_address, form_request("GET", f"/mcp/v1?token={guess}"))
            assert answer.reason == Reason.CREDENTIAL_MISPLACED
    assert await read_events(stage) == []


# The room alone.


class Desk:
    """Alarms over a real audit, in manual time; `found` answers who a token's owner is."""

    def __init__(self, stage: Stage) -> None:
        self.clock = ManualClock()
        self.counted: list[Alarm] = []
        self.found: asyncio.Future[KeyRecord | None] = asyncio.get_running_loop().create_future()
        self.looked_at = 0
        self.audit = Audit(Flusher(stage.database, uuid4(), 60), SystemClock(), lambda _count: None)
        self.alarms = Alarms(
            audit=self.audit, find_proven=self.find, count=self.counted.append, timer=self.clock.boot
        )  # fmt: skip

    async def find(self, token: Token | LegacyToken) -> KeyRecord | None:
        self.looked_at += 1
        return await asyncio.shield(self.found)


async def test_the_same_alarm_is_told_again_from_elsewhere_and_after_a_while(stage: Stage) -> None:
    key = await stage.mint()
    desk, key_id, owner_id = Desk(stage), KeyId(key.summary.id), OwnerId(await read_owner(stage, key))
    for advance, alarm, address in (
        (0, Alarm.SECRET_REPLAYED, HERE), (1, Alarm.SECRET_REPLAYED, HERE), (0, Alarm.SECRET_REPLAYED, THERE),
        (0, Alarm.KEY_EXPOSED, HERE), (600, Alarm.SECRET_REPLAYED, HERE),
    ):  # fmt: skip
        desk.clock.advance(advance)
        desk.alarms.tell(alarm, key_id, owner_id, address, "0123456789abcdef")
    await desk.audit.flush()
    told = [(action, after["address"], after["count"]) for action, _, _, after in await read_events(stage)]
    assert sorted(told) == [
        ("key.exposed", "192.0.2.1", 1), ("secret.replayed", "192.0.2.1", 2), ("secret.replayed", "192.0.2.2", 1),
    ]  # fmt: skip
    assert len(desk.counted) == 5


async def test_a_flood_of_keys_in_urls_is_looked_at_in_part(stage: Stage) -> None:
    desk = Desk(stage)
    for number in range(10 * MAX_LOOKING):
        desk.alarms.look_at(form_secret_token(form_key_id(number)), HERE, "0123456789abcdef")
    await asyncio.sleep(0)
    assert desk.looked_at == MAX_LOOKING
    desk.found.set_result(None)
    await desk.alarms.aclose()
    assert desk.counted == []
