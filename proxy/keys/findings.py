"""Whose are these keys, and do they still open anything?  [io]

In go tokens that were found somewhere, out comes for each what the database has of it. No secret is hashed: the fast
tag tells which of a key's secrets it is, all but once in 2³², and that is enough to know whom to warn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.database import Database
from proxy.identity import KeyId
from proxy.keys.legacy import LegacyToken, find_legacy_secret
from proxy.keys.record import KeyRecord
from proxy.keys.store import KeyStore
from proxy.keys.token import Token, fast_tag

CHUNK: Final = 1_000
ACTIVE, UNKNOWN = "active", "unknown"  # beside the words of `Reason` for what may not be used


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a key: `state` is active, unknown, or why it may not be used."""

    state: str
    key_id: KeyId | None = None
    owner: str | None = None


async def judge_tokens(database: Database, tokens: Iterable[Token | LegacyToken]) -> dict[str, Finding]:
    """By the tokens' texts. Raises DatabaseError."""
    store, wanted = KeyStore(database), list({token.text: token for token in tokens}.values())
    found: dict[str, Finding] = {}
    for start in range(0, len(wanted), CHUNK):
        found |= await _judge(database, store, wanted[start : start + CHUNK])
    return found


async def _judge(database: Database, store: KeyStore, tokens: Sequence[Token | LegacyToken]) -> dict[str, Finding]:
    digests = await store.find_digests([token.digest for token in tokens if isinstance(token, LegacyToken)])
    ids = {token.text: token.key_id if isinstance(token, Token) else digests.get(token.digest) for token in tokens}
    records = await store.read_keys([key_id for key_id in ids.values() if key_id is not None])
    (row,) = await database.fetch("SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    return {
        token.text: _form(token, records[key_id], row["now"])
        if (key_id := ids[token.text]) is not None and key_id in records
        else Finding(UNKNOWN)
        for token in tokens
    }


def _form(token: Token | LegacyToken, record: KeyRecord, now: float) -> Finding:
    version = _find_version(token, record)
    if version is None:
        return Finding(UNKNOWN)  # an id anybody may write down: the secret is not this key's, or no longer remembered
    fault = record.find_use_fault(version, now)
    return Finding(ACTIVE if fault is None else fault.value, record.id, record.owner.subject)


def _find_version(token: Token | LegacyToken, record: KeyRecord) -> int | None:
    if isinstance(token, LegacyToken):
        secret = find_legacy_secret(token, record)
    else:
        secret = record.find_tagged(fast_tag(token.key_id, token.secret))
    return None if secret is None else secret.version
