"""An ear for secrets that get out: it hears what the run logs, refuses, measures and stores, and knows its keys."""

from __future__ import annotations

import io
from collections.abc import Iterable

import asyncpg

LOCK_SECONDS = 20
TABLES = "SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'"


class Ear:
    """`heard`: every log line of the run. The rest is listened to as it comes, for the keys of the test that is on:
    error answers, scrapes, tables."""

    def __init__(self) -> None:
        self.heard = io.BytesIO()
        self.secrets: list[str] = []
        self.leaks: list[str] = []
        self._earlier = 0

    def begin(self) -> None:
        """A test, whose proxies and databases have never heard of an earlier one's keys."""
        self._earlier = len(self.secrets)

    def hear(self, said: bytes, where: str) -> None:
        """Something that must hold no secret."""
        self.leaks += [f"{key} in {where}" for key in find_leaks(said, self.secrets[self._earlier :])]

    def hear_answer(self, status: int, body: bytes) -> None:
        """An answer to a client, which only where it minted or rotated may hold a secret."""
        if status >= 400 or b'"error"' in body:
            self.hear(body, f"the body of an answer {status}")

    async def hear_tables(self, url: str) -> None:
        """Every row of every table of a test's database, if the test minted any key."""
        if len(self.secrets) > self._earlier:
            self.hear(await dump_tables(url), "a table")

    def find_leaks(self) -> list[str]:
        """Where which secret was heard."""
        return self.leaks + [f"{key} in the log" for key in find_leaks(self.heard.getvalue(), self.secrets)]


def find_leaks(said: bytes, secrets: Iterable[str]) -> list[str]:
    """The ids of the keys whose secret is said: as it is, or as a binary column is shown."""
    return [
        token[:18] for token in secrets if (secret := token[19:62].encode()) in said or secret.hex().encode() in said
    ]


async def dump_tables(url: str) -> bytes:
    """What a backup of the database would hold of its rows."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        tables = [row[0] for row in await connection.fetch(TABLES)]
        rows = await connection.fetch(" UNION ALL ".join(f"SELECT t::text FROM {name} AS t" for name in tables))
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows).encode()
