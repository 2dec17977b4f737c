"""What follows from the news: rows read again, what is no longer allowed ended, sessions closed upstream.  [io]

In go news (from `listener`) and the passing of time, out come ended exchanges and orders to clean up sessions. The
judgement is `sessions`'; the carrying is `forwarding`'s. Trust is a matter of `lease`: this room renews it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice

from proxy.clock import Clock, DatabaseClock
from proxy.errors import DatabaseError, Reason
from proxy.gathering import MAX_BATCH
from proxy.identity import KeyId
from proxy.keys.reader import KeyReader
from proxy.lease import Lease, Trust
from proxy.logs import get_logger
from proxy.memory import KeyState, Memory
from proxy.news import EVERYTHING, News, NewsLog
from proxy.receipts import Ended
from proxy.sessions import Exchange, Registry, Surplus

log = get_logger("revocation")

# Ends carried out in one turn of the event loop: about 20 ms of it. Smaller slices let the first streams' tasks wake
# before the last streams have ended (measured: 64 gives a p99 of 120 ms for 1,000 streams, 512 of 46 to 57).
SLICE = 1 << 9
# News of one commit comes in packets of 8 KiB, about eighty keys. Whoever reads at the first reads twice, and the
# second read is judged behind all that the ends of the first left to do (50 ms, for a tenth of 1,000 streams).
GATHER_SECONDS = 0.002
CleanUp = Callable[[list[KeyId] | None], None]
Renew = Callable[[], Awaitable[None]]


def count_ended(key_id: KeyId, exchanges: Sequence[Exchange]) -> Ended:
    """For the receipt."""
    streams = sum(exchange.kind == "stream" for exchange in exchanges)
    return Ended(key_id, streams, len(exchanges) - streams)


class Doubts:
    """Keys that the news put in doubt, and since which boot time."""

    def __init__(self, gather_seconds: float) -> None:
        self._gather_seconds = gather_seconds
        self._since: dict[KeyId, float] = {}
        self._some = asyncio.Event()

    def add(self, key_ids: Iterable[KeyId], since: float) -> None:
        for key_id in key_ids:
            self._since.setdefault(key_id, since)
        self._some.set()

    async def take(self) -> dict[KeyId, float]:
        """As many as one read asks for, the oldest first, soon after anything was said."""
        await self._some.wait()
        await asyncio.sleep(self._gather_seconds)
        taken = dict(islice(self._since.items(), MAX_BATCH))
        for key_id in taken:
            del self._since[key_id]
        if not self._since:
            self._some.clear()
        return taken

    def put_back(self, taken: Mapping[KeyId, float]) -> None:
        """They are in doubt still, since the earlier instant."""
        self._since = {**taken, **self._since, **taken}
        self._some.set()

    def find_older(self, instant: float) -> list[KeyId]:
        return [key_id for key_id, since in self._since.items() if since <= instant]


class Revocation:
    """The conductor. `clean_up_sessions` starts ending upstream what dead keys (None: any) left there;
    `renew_connections` has the database's connections replaced, because the address may lead elsewhere now."""

    def __init__(
        self,
        *,
        news: NewsLog,
        memory: Memory,
        reader: KeyReader,
        registry: Registry,
        lease: Lease,
        clock: Clock,
        database_clock: DatabaseClock,
        clean_up_sessions: CleanUp,
        renew_connections: Renew,
        heartbeat_seconds: float,
        revalidate_seconds: float,
        count_news: Callable[[], None] = lambda: None,
        confirm: Callable[[Sequence[Ended]], None] = lambda _ended: None,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._news = news
        self._memory = memory
        self._reader = reader
        self._registry = registry
        self._lease = lease
        self._clock = clock
        self._database_clock = database_clock
        self._clean_up_sessions = clean_up_sessions
        self._renew_connections = renew_connections
        self._heartbeat_seconds = heartbeat_seconds
        self._revalidate_seconds = revalidate_seconds
        self._count_news = count_news
        self._confirm = confirm
        self._held, self._idle = Doubts(gather_seconds), Doubts(gather_seconds)
        self._sweep_all = False
        self._acts: deque[Callable[[], None]] = deque()
        self._revalidated_at = float("-inf")

    # The listener's calls.

    def hear(self, news: News) -> None:
        """Number the news, which pauses every relay it concerns, and have the rows read again."""
        self._count_news()
        self._doubt_about(news)

    def _doubt_about(self, news: News) -> None:
        self._news.add(news)
        now = self._clock.boot()
        self._held.add(self._registry.find_touched(news), now)
        if news.key_id is None:
            self._sweep_all = True
        elif not self._registry.holds(news.key_id):
            self._idle.add([news.key_id], now)  # its sessions may be nobody's here, and still have to end

    async def revalidate(self) -> None:
        """Forget what was remembered and read again what is open. Raises DatabaseError."""
        self._doubt_about(EVERYTHING)
        await self._renew_connections()
        await self._revalidate_open()

    def rejudge(self) -> None:
        """Rights follow from another policy now: nothing goes on before it has been judged anew."""
        self._doubt_about(EVERYTHING)

    def prove(self, stamp: float) -> None:
        """Renew trust, unless rounds of revalidation have been failing: then nonces alone prove too little."""
        if stamp < self._revalidated_at + 2 * self._revalidate_seconds:
            self._lease.renew(stamp)

    def lose(self) -> None:
        """Without a listener memory decides nothing."""
        self._lease.distrust()

    # The passing of time.

    async def run(self) -> None:
        """Watch over what is open, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_news(self._held))
            tasks.create_task(self._follow_news(self._idle))
            tasks.create_task(self._keep_watch())
            tasks.create_task(self._watch_instants())

    async def _follow_news(self, doubts: Doubts) -> None:
        """Read again what the news put in doubt: one read running, everything that comes meanwhile in the next."""
        while True:
            taken = await doubts.take()
            sweep_all, self._sweep_all = self._sweep_all, False
            try:
                await self._judge_keys(taken)
            except DatabaseError as error:
                log.warning("reading_again_failed", keys=len(taken), error=str(error))
                doubts.put_back(taken)
                self._sweep_all |= sweep_all
                self._give_up_on(doubts.find_older(self._clock.boot() - self._lease.lease_seconds))
                await asyncio.sleep(self._heartbeat_seconds)
            else:
                self._clean_up_sessions(list(taken))
                if sweep_all:
                    self._clean_up_sessions(None)

    def _give_up_on(self, key_ids: Iterable[KeyId]) -> None:
        """A doubt younger than the lease pauses; an older one ends: the next nonce must not outlive a stuck read."""
        self._end(self._registry.end_keys(key_ids, Reason.STATE_UNKNOWN))

    async def _keep_watch(self) -> None:
        """Every heartbeat: while trust is lost, revalidate what is open. Rounds even while trusted, so that whatever
        escaped the news has a bound too."""
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            now = self._clock.boot()
            trust = self._lease.judge(now)
            if trust is not Trust.TRUSTED or now - self._revalidated_at >= self._revalidate_seconds:
                await self._try_round(trust)

    async def _try_round(self, trust: Trust) -> None:
        try:
            await self._revalidate_open()
        except DatabaseError as error:
            log.warning("revalidation_failed", trust=trust, error=str(error))
        else:
            if trust is Trust.TRUSTED:
                self._clean_up_sessions(None)

    async def _revalidate_open(self) -> None:
        """Read every key that holds something, and judge. Raises DatabaseError."""
        stamp = self._clock.boot()
        await self._judge_keys(self._registry.key_ids)
        if self._database_clock.observed:
            self._lease.extend(stamp)
            self._revalidated_at = stamp

    async def _watch_instants(self) -> None:
        """End what runs out, and everything once the database was silent for too long, at the instant: no read is
        waited for. The heartbeat bounds how long an instant noted meanwhile is overlooked; the inline check before
        every relayed chunk overlooks nothing."""
        now = self._clock.boot()
        while True:
            await asyncio.sleep(self._find_pause(now))
            now = self._clock.boot()
            if self._lease.judge(now) is Trust.CLOSED:
                self._end(self._registry.end_all(Reason.DATABASE_SILENT))
            if self._database_clock.observed:
                self._end(self._registry.end_expired(now))

    def _find_pause(self, now: float) -> float:
        """Seconds from `now`, up to which everything was judged, until the next instant at which something may have to
        end; no more than a heartbeat. A clock read anew would overlook an instant between the two readings."""
        pauses = [self._lease.open_until - now]
        deadline = self._registry.find_deadline()
        if deadline is not None and self._database_clock.observed:
            pauses.append(deadline - self._database_clock.now(now))
        return min((pause for pause in pauses if 0 < pause < self._heartbeat_seconds), default=self._heartbeat_seconds)

    # The acts.

    async def _judge_keys(self, key_ids: Iterable[KeyId]) -> None:
        """Read, remember and judge these keys. Raises DatabaseError."""
        states = await self._reader.read_many(key_ids)
        now = self._clock.boot()
        ended: list[Ended] = []
        surplus: Surplus = {}
        for state in states.values():
            self._judge_key(state, now, ended, surplus)
        if ended:
            self._carry_out([lambda: self._confirm(ended)])  # after the ends

    def _judge_key(self, state: KeyState, now: float, ended_for_good: list[Ended], surplus: Surplus) -> None:
        """Hold what a key holds against its state."""
        if not self._memory.keep_state(state):
            revoked = self._memory.is_revoked(state.key_id)
            self._refuse_older(state.key_id, revoked, ended_for_good)
            return
        try:
            ended, confirmed = self._registry.judge(state, now, surplus)
        except Exception:
            # One row that nobody foresaw must not keep the others from being judged.
            log.exception("judging_failed", key_id=state.key_id)
            ended, confirmed = self._registry.end_keys([state.key_id], Reason.STATE_UNKNOWN), []
        self._end(ended)
        if state.record is None or state.record.status == "revoked":
            ended_for_good.append(count_ended(state.key_id, ended))
        for exchange in confirmed:
            if exchange.on_resume is not None:
                exchange.on_resume()

    def _refuse_older(self, key_id: KeyId, revoked: bool, ended_for_good: list[Ended]) -> None:
        """The row is older than one already seen: nothing may rest on it."""
        log.error("key_row_older_than_seen", key_id=key_id, why="a replica that lags, or a backup that was restored")
        ended = self._registry.end_keys([key_id], Reason.KEY_REVOKED if revoked else Reason.STATE_UNKNOWN)
        self._end(ended)
        if revoked:
            ended_for_good.append(count_ended(key_id, ended))

    def _end(self, exchanges: Iterable[Exchange]) -> None:
        """They have ended already, in the registry's eyes: nothing flows. Here that is carried out."""
        ended = list(exchanges)
        kinds = Counter((exchange.principal.key_id, exchange.kind, exchange.ended) for exchange in ended)
        for (key_id, kind, reason), number in kinds.items():
            log.info("exchanges_ended", key_id=key_id, kind=kind, reason=reason, exchanges=number)
        self._carry_out(exchange.tell_end for exchange in ended)

    def _carry_out(self, acts: Iterable[Callable[[], None]]) -> None:
        """In their order, in slices: one key's thousands of streams must not keep everybody else's requests waiting."""
        under_way = bool(self._acts)
        self._acts.extend(acts)
        if not under_way:
            self._carry_out_slice()

    def _carry_out_slice(self) -> None:
        for _ in range(min(SLICE, len(self._acts))):
            act = self._acts.popleft()
            try:
                act()
            except Exception:  # one that fails must not keep the others from being carried out
                log.exception("ending_failed")
        if self._acts:
            asyncio.get_running_loop().call_soon(self._carry_out_slice)

    def close(self) -> None:
        """Something that nothing may go on without has failed: believe nothing, end everything."""
        self._lease.close()
        self.end_all(Reason.STATE_UNKNOWN)

    def end_streams(self, reason: Reason) -> None:
        """End what would never end by itself."""
        self._end(self._registry.end_streams(reason))

    def end_all(self, reason: Reason) -> None:
        """End everything."""
        self._end(self._registry.end_all(reason))
