"""Who holds what right now: every open call and stream, by the key it runs under.  [pure]

In go principals, news and fresh key states, out come decisions: what may flow, what must end and why. Methods are
synchronous and change the registry before they return; the caller then does what they say ("decide, then act").
Nothing here sends, aborts or awaits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush, merge
from itertools import islice

from proxy.client_address import ClientAddress
from proxy.clock import DatabaseClock
from proxy.errors import DeniedError, Reason
from proxy.identity import KeyId, Principal
from proxy.lease import Lease
from proxy.limits import EXCEEDED, Kind, find_limits, is_admitted, refuse_excess
from proxy.memory import KeyState, Rights
from proxy.news import News, NewsLog
from proxy.policy.scopes import covers

# Of a key, a kind and a limit: the number of the first exchange that is one too many; None: none is.
Surplus = dict[tuple[KeyId, Kind, int], int | None]


class Flow(Enum):
    """Whether the next byte may be relayed."""

    OPEN = "open"
    PAUSED = "paused"  # news concerns the key and its row has not been read again yet
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class ClaimedSession:
    """An MCP session that was found to be the key's own, and the rights it was made under."""

    session_hash: bytes
    grants: tuple[str, ...]


class Exchange:
    """One call or stream in flight. `on_end`, `on_resume` and `inject` are the relay's: to abort, to look again, and to
    say something between two events of the answer (False: it cannot be said). `reauthorize` is the front door's: the
    scopes that the policy in force now asks of this principal for what was asked then, or None where it refuses it."""

    __slots__ = (
        "address",
        "ended",
        "inject",
        "kind",
        "number",
        "on_end",
        "on_resume",
        "permitted",
        "principal",
        "read_sequence",
        "reauthorize",
        "rejudged",
        "rested",
        "revision",
        "session",
        "subjects",
    )

    def __init__(
        self,
        principal: Principal,
        kind: Kind,
        scopes: tuple[str, ...],
        *,
        address: ClientAddress | None,
        read_sequence: int,
        number: int,
    ) -> None:
        self.principal = principal
        self.kind = kind
        self.address = address  # where it was asked for
        self.number = number  # the later it was opened, the higher
        self.permitted = scopes  # what the permit rests on: judged again when the key's rights or the policy change
        self.rested: tuple[str, ...] = ()  # what is used upstream rests on
        self.reauthorize: Callable[[Principal], tuple[str, ...] | None] | None = None
        self.revision = ""  # of the policy that allowed it, last time it was asked
        self.read_sequence = read_sequence
        self.subjects: tuple[str, ...] = (*principal.lineage, principal.owner.id)
        self.ended: Reason | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self.inject: Callable[[bytes], bool] | None = None
        self.session: tuple[str, bytes] | None = None
        self.rejudged = False

    @property
    def scopes(self) -> tuple[str, ...]:
        """Losing one of these ends it."""
        return (*self.permitted, *self.rested)

    @property
    def view(self) -> tuple[frozenset[str], str]:
        """What its client sees of lists follows from these two."""
        return self.principal.grants, self.revision

    def tell_end(self) -> None:
        """Have it carried out that this has ended."""
        if self.on_end is not None:
            self.on_end()

    def rest_on_session(self, upstream: str, session: ClaimedSession) -> None:
        """It uses state made upstream under these rights: losing one of them ends it too. Raises DeniedError."""
        self.session = (upstream, session.session_hash)
        self.rest_on(session.grants)

    def rest_on(self, scopes: tuple[str, ...]) -> None:
        """It goes on for as long as the key has these rights, too. Raises DeniedError when the key, judged anew while
        they were looked up, has lost one of them already."""
        self.rested = (*self.rested, *scopes)
        if self.rejudged and not all(covers(self.principal.grants, scope) for scope in scopes):
            raise DeniedError(Reason.RIGHTS_CHANGED, "The API key has just lost the right to this.")


class Holding:
    """What is open under one key or owner: how much by which key, and how much of each kind."""

    __slots__ = ("key_ids", "kinds")

    def __init__(self) -> None:
        self.key_ids: dict[KeyId, int] = {}  # a key may change hands while it holds some
        self.kinds: dict[Kind, int] = {"call": 0, "stream": 0}


class Registry:
    """All exchanges of this process. `rights` gives the effective scopes of a record."""

    def __init__(self, *, news: NewsLog, lease: Lease, database_clock: DatabaseClock, rights: Rights) -> None:
        self._news = news
        self._lease = lease
        self._database_clock = database_clock
        self._rights = rights
        self._by_key: dict[KeyId, dict[Exchange, None]] = {}
        self._by_subject: dict[str, Holding] = {}
        self._opened = 0
        self._deadlines: list[tuple[float, KeyId]] = []
        self._noted: set[tuple[float, KeyId]] = set()
        self.on_empty: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return sum(len(exchanges) for exchanges in self._by_key.values())

    def find_sessions(self) -> set[tuple[str, bytes]]:
        """The MCP sessions in use right now: (upstream, hash of the id)."""
        return {
            exchange.session
            for exchanges in self._by_key.values()
            for exchange in exchanges
            if exchange.session is not None
        }

    def find_stream(self, key_id: KeyId, session: tuple[str, bytes]) -> Exchange | None:
        """The key's live stream of this session, if it is here and something can be said on it."""
        streams = (exchange for exchange in self._live([key_id]) if exchange.session == session)
        return next((exchange for exchange in streams if exchange.inject is not None), None)

    def count_kinds(self) -> dict[str, int]:
        """How many are open, by kind."""
        counts = {"call": 0, "stream": 0}
        for exchanges in self._by_key.values():
            for exchange in exchanges:
                counts[exchange.kind] += 1
        return counts

    def holds(self, key_id: KeyId) -> bool:
        """Whether the key has anything open."""
        return key_id in self._by_key

    @property
    def key_ids(self) -> list[KeyId]:
        """Every key that holds something."""
        return list(self._by_key)

    def open(
        self, principal: Principal, kind: Kind, scopes: tuple[str, ...], address: ClientAddress | None
    ) -> Exchange:
        """Register an exchange, in the same step as the verification it rests on: no await between the two. Raises
        LimitError when it is one too many; then nothing is."""
        self.check_room(principal, kind)
        self._opened += 1
        exchange = Exchange(
            principal, kind, scopes, address=address, read_sequence=self._news.sequence, number=self._opened
        )
        key_id = principal.key_id
        self._by_key.setdefault(key_id, {})[exchange] = None
        for subject in exchange.subjects:
            holding = self._by_subject.get(subject)
            if holding is None:
                holding = self._by_subject[subject] = Holding()
            holding.key_ids[key_id] = holding.key_ids.get(key_id, 0) + 1
            holding.kinds[kind] += 1
        self._note_deadline(principal)
        return exchange

    def check_room(self, principal: Principal, kind: Kind) -> None:
        """Raises LimitError when one more of a kind is one too many, for the key or one it descends from."""
        for key_id, limit in find_limits(principal.constrained, kind):
            holding = self._by_subject.get(key_id)
            if holding is not None and holding.kinds[kind] >= limit:
                raise refuse_excess(principal, key_id, kind, limit)

    def turn_into_stream(self, exchange: Exchange) -> None:
        """Only its answer says that it waits for its client to leave. Raises LimitError when it is one too many; then
        it stays a call."""
        self.check_room(exchange.principal, "stream")
        for subject in exchange.subjects:
            kinds = self._by_subject[subject].kinds
            kinds[exchange.kind] -= 1
            kinds["stream"] += 1
        exchange.kind = "stream"

    def _note_deadline(self, principal: Principal) -> None:
        """One heap entry per key and instant, however many calls it makes."""
        if principal.ends is not None:
            deadline = (principal.ends[0], principal.key_id)
            if deadline not in self._noted:
                self._noted.add(deadline)
                heappush(self._deadlines, deadline)

    def close(self, exchange: Exchange) -> None:
        """The exchange is over, for whatever reason. Closing twice is harmless."""
        key_id = exchange.principal.key_id
        siblings = self._by_key.get(key_id)
        if siblings is None or siblings.pop(exchange, exchange) is exchange:
            return
        for subject in exchange.subjects:
            self._release(subject, exchange)
        if not siblings:
            del self._by_key[key_id]
            if not self._by_key:
                self.on_empty()

    def _release(self, subject: str, exchange: Exchange) -> None:
        holding, key_id = self._by_subject[subject], exchange.principal.key_id
        holding.kinds[exchange.kind] -= 1
        holding.key_ids[key_id] -= 1
        if not holding.key_ids[key_id]:
            del holding.key_ids[key_id]
        if not holding.key_ids:
            del self._by_subject[subject]

    def judge_flow(self, exchange: Exchange, now: float) -> Flow:
        """May the next byte flow at boot time `now`? To be asked before every relayed chunk."""
        if exchange.ended is not None:
            return Flow.ENDED
        if not self._lease.is_flowing(exchange.principal.read_at, now):
            exchange.ended = Reason.DATABASE_SILENT
            return Flow.ENDED
        ends = exchange.principal.ends
        if ends is not None and self._database_clock.now(now) >= ends[0]:
            exchange.ended = ends[1]
            return Flow.ENDED
        if not self._news.is_current(exchange.read_sequence, exchange.subjects):
            return Flow.PAUSED
        return Flow.OPEN

    def find_touched(self, news: News) -> list[KeyId]:
        """The keys whose exchanges a piece of news concerns."""
        subject = news.key_id or news.owner_id
        if subject is None:
            return self.key_ids
        holding = self._by_subject.get(subject)
        return list(holding.key_ids) if holding is not None else []

    def judge(
        self, state: KeyState, now: float, surplus: Surplus | None = None
    ) -> tuple[list[Exchange], list[Exchange]]:
        """Hold a key's exchanges against its fresh state: (those that end, those that may go on).

        A state overtaken by news says nothing about an exchange that was opened, or confirmed, on a later one.
        `surplus`: one dictionary for all the keys of a round, so that a tree is not counted again for each of its keys.
        """
        surplus = {} if surplus is None else surplus
        overtaken = not self._news.is_current(state.read_sequence, state.subjects)
        judged = [
            exchange
            for exchange in self._by_key.get(state.key_id, ())
            if exchange.ended is None and not (overtaken and exchange.read_sequence > state.read_sequence)
        ]
        for exchange in judged:
            exchange.ended = self._find_fault(exchange, state, now)
        self._end_surplus([exchange for exchange in judged if exchange.ended is None], state, surplus)
        confirmed = [exchange for exchange in judged if exchange.ended is None]
        for exchange in confirmed:
            if state.read_at >= exchange.principal.read_at:
                exchange.principal = state.get_principal(exchange.principal.secret_version, self._rights)
                exchange.rejudged = True
            exchange.read_sequence = max(exchange.read_sequence, state.read_sequence)
            self._note_deadline(exchange.principal)  # it may have moved
        return [exchange for exchange in judged if exchange.ended is not None], confirmed

    def _end_surplus(self, live: list[Exchange], state: KeyState, surplus: Surplus) -> None:
        """What is beyond a limit of the lineage ends, the newest first: what is left is what had been let in, had the
        limit always been there, and whoever has worked the longest has the most to lose."""
        if not live:
            return
        principal = state.get_principal(live[0].principal.secret_version, self._rights)
        for kind, reason in EXCEEDED.items():
            for key_id, limit in find_limits(principal.constrained, kind):
                limited = key_id, kind, limit
                if limited not in surplus:
                    surplus[limited] = self._find_surplus(*limited)
                first = surplus[limited]
                if first is not None:
                    for exchange in live:
                        if exchange.kind == kind and exchange.number >= first:
                            exchange.ended = reason

    def _find_surplus(self, subject: KeyId, kind: Kind, limit: int) -> int | None:
        """The number of the first one too many, if there is one."""
        holding = self._by_subject.get(subject)
        if holding is None or holding.kinds[kind] <= limit:
            return None
        held = (self._by_key[key_id] for key_id in holding.key_ids)
        numbers = ((one.number for one in some if one.kind == kind and one.ended is None) for some in held)
        return next(islice(merge(*numbers), limit, None), None)

    def _find_fault(self, exchange: Exchange, state: KeyState, now: float) -> Reason | None:
        record = state.record
        if record is None:
            return Reason.CREDENTIAL_INVALID
        version = exchange.principal.secret_version
        fault = record.find_use_fault(version, self._database_clock.now(now))
        if fault is not None:
            return fault
        principal = state.get_principal(version, self._rights)
        same_owner = (principal.owner.id, principal.owner.tenant_id) == (
            exchange.principal.owner.id,
            exchange.principal.owner.tenant_id,
        )
        if not is_admitted(principal, exchange.address):
            return Reason.ADDRESS_NOT_ALLOWED
        permitted = exchange.permitted if exchange.reauthorize is None else exchange.reauthorize(principal)
        if not same_owner or permitted is None:
            return Reason.RIGHTS_CHANGED
        exchange.permitted = permitted
        lost = any(not covers(principal.grants, scope) for scope in exchange.scopes)
        return Reason.RIGHTS_CHANGED if lost else None

    def end_all(self, reason: Reason) -> list[Exchange]:
        """End everything: trust is lost, or the process drains."""
        return self.end_keys(self._by_key, reason)

    def end_keys(self, key_ids: Iterable[KeyId], reason: Reason) -> list[Exchange]:
        """End whatever these keys hold."""
        live = self._live(key_ids)
        for exchange in live:
            exchange.ended = reason
        return live

    def end_streams(self, reason: Reason) -> list[Exchange]:
        """End the streams, which wait for their client to leave; calls may finish."""
        streams = [exchange for exchange in self._live(self._by_key) if exchange.kind == "stream"]
        for exchange in streams:
            exchange.ended = reason
        return streams

    def end_expired(self, now: float) -> list[Exchange]:
        """End what has run out at boot time `now`."""
        database_now = self._database_clock.now(now)
        expired: set[KeyId] = set()
        while self._deadlines and self._deadlines[0][0] <= database_now:
            deadline = heappop(self._deadlines)
            self._noted.discard(deadline)
            expired.add(deadline[1])
        return [exchange for exchange in self._live(expired) if self.judge_flow(exchange, now) is Flow.ENDED]

    def _live(self, key_ids: Iterable[KeyId]) -> list[Exchange]:
        return [
            exchange for key_id in key_ids for exchange in self._by_key.get(key_id, ()) if exchange.ended is None
        ]  # fmt: skip

    def find_deadline(self) -> float | None:
        """The next instant, by the database's clock, at which something runs out."""
        return self._deadlines[0][0] if self._deadlines else None
