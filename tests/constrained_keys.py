"""Keys with constraints, for tests over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from proxy.client_address import parse_network
from proxy.identity import KeyId
from proxy.keys.changes import KeyChanges, WantedKey
from proxy.keys.minting import MintedKey
from proxy.keys.rights import form_caller_of_key
from proxy.server import Proxy
from tests.raw_client import RawAnswer
from tests.refusal_tables import PING
from tests.staging import Stage

# Whoever connects from the loopback is a proxy of ours: a test says where its requests come from.
BEHIND_A_PROXY: dict[str, Any] = {"trusted_proxies": (parse_network("127.0.0.0/8"),)}


async def constrain(stage: Stage, key: MintedKey, **constraints: Any) -> None:
    """As psql would: these, and no others."""
    text = json.dumps(constraints)
    await stage.sql("UPDATE api_keys SET constraints = $2::text::jsonb WHERE id = $1", key.summary.id, text)


async def constrain_and_wait_heard(stage: Stage, proxy: Proxy, key: MintedKey, **constraints: Any) -> None:
    """And return once the proxy has heard of it."""
    news = proxy.heart.verifier._memory._news
    heard = news.sequence
    await constrain(stage, key, **constraints)
    while news.sequence == heard:
        await asyncio.sleep(0.01)


def check_limited(answer: RawAnswer, reason: str, seconds: int) -> None:
    """A whole refusal of one JSON-RPC request too many: `refusal_tables.PING`."""
    assert (answer.status, answer.reason) == (429, reason)
    error = answer.json["error"]
    assert (answer.json["id"], error["code"], error["data"]["reason"]) == (PING["id"], -31429, reason)
    assert 0 < int(answer.headers["Retry-After"]) == error["data"]["retry_after_seconds"] <= seconds


async def mint_child(stage: Stage, parent: MintedKey, name: str = "child") -> MintedKey:
    """A key that a key has made, with all it has."""
    parent_id = KeyId(parent.summary.id)
    caller = form_caller_of_key((await stage.store.read_keys([parent_id]))[parent_id], stage.policy, 1)
    wanted = WantedKey(name, scopes=tuple(parent.summary.scopes))
    child = await KeyChanges(stage.database, stage.hasher).mint(caller, wanted, stage.policy)
    stage.note_secret(child.token)
    return child
