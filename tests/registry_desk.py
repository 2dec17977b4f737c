"""A registry of exchanges and everything it stands among, for tests that need neither database nor sockets."""

from __future__ import annotations

from proxy.client_address import ClientAddress
from proxy.clock import DatabaseClock
from proxy.keys.record import KeyRecord
from proxy.lease import Lease
from proxy.limits import Kind
from proxy.memory import KeyState
from proxy.news import NewsLog
from proxy.sessions import Exchange, Flow, Registry
from tests.clocks import ManualClock
from tests.records import find_rights

LEASE_SECONDS, GRACE_SECONDS = 2.0, 1.0


class Desk:
    """A registry and everything it stands among, with a fresh lease and the database's time."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.address: ClientAddress | None = None
        self.news = NewsLog()
        self.lease = Lease(lease_seconds=LEASE_SECONDS, grace_seconds=GRACE_SECONDS)
        self.database_clock = DatabaseClock()
        self.database_clock.observe(self.clock.wall(), self.clock.boot(), self.clock.boot())
        self.registry = Registry(
            news=self.news, lease=self.lease, database_clock=self.database_clock, rights=find_rights
        )
        self.lease.renew(self.clock.boot())

    @property
    def database_now(self) -> float:
        return self.database_clock.now(self.clock.boot())

    def read(self, record: KeyRecord) -> KeyState:
        """The record as if read now."""
        return KeyState(record.id, record, self.news.sequence, self.clock.boot())

    def open(
        self, record: KeyRecord, kind: Kind = "stream", scopes: tuple[str, ...] = (), secret_version: int = 1
    ) -> Exchange:
        """What the door does with a key verified now."""
        return self.registry.open(
            self.read(record).get_principal(secret_version, find_rights), kind, scopes, self.address
        )

    def flow(self, exchange: Exchange) -> Flow:
        return self.registry.judge_flow(exchange, self.clock.boot())

    def judge(self, state: KeyState) -> tuple[list[Exchange], list[Exchange]]:
        return self.registry.judge(state, self.clock.boot())

    def end_expired(self) -> list[Exchange]:
        return self.registry.end_expired(self.clock.boot())

    def is_swept(self) -> bool:
        """Nothing is left of anything that was ever open, but deadlines still to come."""
        registry = self.registry
        deadlines = registry._deadlines
        assert sorted(registry._noted) == sorted(deadlines)
        return not registry._by_key and not registry._by_subject and len(registry) == 0
