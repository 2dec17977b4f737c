"""What can be said of a token without working a hash: that it certainly opens nothing, or whose it seems to be.  [io]

In go tokens from addresses that present too many invalid ones, out comes a verdict: from memory, or by a read that many
of them share, paced and one at a time. Only what the verifier would refuse as well is said to fail; the rest is for it
to judge. Nobody is admitted here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final

from proxy.clock import Clock
from proxy.gathering import Gathering
from proxy.keys.digests import Digests
from proxy.keys.legacy import LegacyToken, find_legacy_secret
from proxy.keys.reader import KeyReader
from proxy.keys.record import KeyRecord
from proxy.keys.token import Token, fast_tag
from proxy.lease import Lease, Trust
from proxy.memory import Memory

# Between two reads: twenty a second, whatever comes, and a right key that memory does not hold waits no longer than a
# page takes to load.
PACE_SECONDS: Final = 0.05

AnyToken = Token | LegacyToken


class Verdict(Enum):
    """`UNREAD`: memory does not know."""

    FAILS = auto()
    MAY_PASS = auto()
    UNREAD = auto()


class Screen:
    """One instance per process."""

    def __init__(
        self, *, memory: Memory, reader: KeyReader, digests: Digests, lease: Lease, clock: Clock,
        pace_seconds: float = PACE_SECONDS,
    ) -> None:  # fmt: skip
        self._memory = memory
        self._reader = reader
        self._digests = digests
        self._lease = lease
        self._clock = clock
        self._pace_seconds = pace_seconds
        self._lane = Gathering(self._read, "tokens")

    def judge(self, token: AnyToken) -> Verdict:
        """From memory alone."""
        if self._memory.find_proof(self._memory.digest(token.text)) is not None:
            return Verdict.MAY_PASS  # it was right once: whatever became of it is the verifier's to say
        now = self._clock.boot()
        if isinstance(token, LegacyToken) or self._lease.judge(now) is not Trust.TRUSTED:
            return Verdict.UNREAD
        state = self._memory.find_state(token.key_id, now)
        return Verdict.UNREAD if state is None else _compare(token, state.record)

    def ask(self, token: AnyToken, tell: Callable[[Verdict], None]) -> None:
        """By a read that begins from now on; `tell` hears anything but UNREAD. A database that does not answer is the
        verifier's to report."""

        def hear(answer: asyncio.Future[Mapping[AnyToken, Verdict]]) -> None:
            failed = answer.cancelled() or answer.exception() is not None
            tell(Verdict.MAY_PASS if failed else answer.result()[token])

        self._lane.ask((token,)).add_done_callback(hear)

    async def _read(self, tokens: Sequence[AnyToken]) -> Mapping[AnyToken, Verdict]:
        await asyncio.sleep(self._pace_seconds)
        if (trust := self._lease.judge(self._clock.boot())) is Trust.CLOSED:
            return dict.fromkeys(tokens, Verdict.MAY_PASS)
        own = [token for token in tokens if isinstance(token, Token)]
        legacy = [token for token in tokens if isinstance(token, LegacyToken)]
        verdicts = await self._read_own(own) if own else {}
        return verdicts | (await self._read_legacy(legacy, trust) if legacy else {})

    async def _read_own(self, tokens: Sequence[Token]) -> dict[AnyToken, Verdict]:
        states = await self._reader.read_many({token.key_id for token in tokens})
        doubtful = {key_id for key_id, state in states.items() if not self._memory.keep_state(state)}
        return {
            token: Verdict.MAY_PASS if token.key_id in doubtful else _compare(token, states[token.key_id].record)
            for token in tokens
        }

    async def _read_legacy(self, tokens: Sequence[LegacyToken], trust: Trust) -> dict[AnyToken, Verdict]:
        trusted = trust is Trust.TRUSTED
        found = await asyncio.gather(*(self._digests.find_key(token.digest, trusted=trusted) for token in tokens))
        return {
            token: Verdict.FAILS if key_id is None else Verdict.MAY_PASS
            for token, key_id in zip(tokens, found, strict=True)
        }

    async def find_proven(self, token: AnyToken) -> KeyRecord | None:
        """The key whose token this is by its fast tag, which is enough to tell its owner something, and not to let
        anybody in. Raises DatabaseError."""
        if isinstance(token, Token):
            record = (await self._reader.read(token.key_id)).record
            return record if _compare(token, record) is Verdict.MAY_PASS else None
        key_id = await self._digests.find_key(
            token.digest, trusted=self._lease.judge(self._clock.boot()) is Trust.TRUSTED
        )
        record = (await self._reader.read(key_id)).record if key_id is not None else None
        return record if record is not None and find_legacy_secret(token, record) is not None else None

    async def aclose(self) -> None:
        """Give up what is being read."""
        await self._lane.aclose()


def _compare(token: Token, record: KeyRecord | None) -> Verdict:
    """By the fast tag: one in 2^32 passes that should not, for the verifier to refuse."""
    fits = record is not None and record.find_tagged(fast_tag(token.key_id, token.secret)) is not None
    return Verdict.MAY_PASS if fits else Verdict.FAILS
