"""How the proxy is doing, for Prometheus.  [io: the process's own figures come from /proc]

In go counts from the rooms and, at each scrape, what the probes read off them: a figure that somebody already keeps is
not kept twice. Out goes the text of `/metrics` on the ops listener. Labels are words of ours (reasons, states, names of
configured routes and upstreams), never a key id, an address or anything a client chose.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from proxy.errors import Reason
from proxy.lease import Trust

# From the default argon2 profile (3.5 ms), over OWASP's (19 ms), to the admission timeout.
ARGON2_BUCKETS: Final = (0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0)


class Metrics:
    """One instance per process, made by the composition root, with a registry of its own."""

    def __init__(self, version: str) -> None:
        self._registry = registry = CollectorRegistry()
        self._probes: list[Callable[[], None]] = []
        self._requests: dict[tuple[str, str], Counter] = {}
        self._ended: dict[Reason, Counter] = {}

        self._request = Counter(
            "aegis_requests", "Requests by configured route and outcome", ["route", "outcome"], registry=registry
        )
        verifications = Counter(
            "aegis_verifications",
            "Verifications, by what it took (an admitted request makes two)",
            ["by"],
            registry=registry,
        )
        self._verified_by_memory = verifications.labels("memory")
        self._verified_by_database = verifications.labels("database")
        self.argon2_seconds = Histogram(
            "aegis_argon2_seconds",
            "Time until a hash was done, queueing included",
            buckets=ARGON2_BUCKETS,
            registry=registry,
        )
        self.hashing_queue = Gauge("aegis_hashing_queue", "Hashes running and waiting", registry=registry)

        self._exchanges = Gauge("aegis_exchanges_live", "Calls and streams open now", ["kind"], registry=registry)
        self._exchanges_ended = Counter(
            "aegis_exchanges_ended", "Calls and streams ended by us, by reason", ["reason"], registry=registry
        )
        self.rate_buckets = Gauge(
            "aegis_rate_buckets", "Keys with a rate that are remembered, used lately", registry=registry
        )
        self.list_events_dropped = Counter(
            "aegis_list_events_dropped", "List answers withheld because they could not be filtered", registry=registry
        )

        self._lease = Gauge("aegis_lease_state", "1 for the state of trust in the news", ["state"], registry=registry)
        self._bounds = Gauge(
            "aegis_revocation_bound_seconds",
            "Nothing outlives a change by more, whether its news is sent or not",
            ["news"],
            registry=registry,
        )
        self._lease_seconds = Gauge("aegis_lease_remaining_seconds", "Until memory is distrusted", registry=registry)
        self.news_heard = Counter("aegis_news_heard", "Notifications of changed keys and owners", registry=registry)
        self.notification_queue_ratio = Gauge(
            "aegis_notification_queue_ratio", "Of the database's queue in use; full, nothing commits", registry=registry
        )
        self.database_clock_skew_seconds = Gauge(
            "aegis_database_clock_skew_seconds", "How far the database's clock is ahead of ours", registry=registry
        )

        self._upstream_errors = Counter(
            "aegis_upstream_errors", "Failures of an upstream, by reason", ["upstream", "reason"], registry=registry
        )
        self._upstream_connections = Gauge(
            "aegis_upstream_connections", "Connections to an upstream", ["upstream", "state"], registry=registry
        )

        readings = Counter(
            "aegis_identity_provider_readings",
            "Readings of the identity provider's keys, by outcome",
            ["outcome"],
            registry=registry,
        )
        self._provider_readings = {True: readings.labels("read"), False: readings.labels("failed")}

        self.audit_dropped = Counter(
            "aegis_audit_dropped", "Denials and events that are missing in the audit", registry=registry
        )
        self._alarms = Counter(
            "aegis_alarms", "Secrets that have got out, by the look of it", ["alarm"], registry=registry
        )
        self.usage_dropped = Counter(
            "aegis_usage_dropped", "Decisions that are missing in the usage of keys", registry=registry
        )

        self.tasks = Gauge("aegis_tasks", "Tasks of the event loop", registry=registry)
        self._policy = Info("aegis_policy", "The policy in force", registry=registry)
        self._candidate = Info("aegis_policy_candidate", "The policy on trial, if any", registry=registry)
        self._policy_faulty = Gauge(
            "aegis_policy_file_faulty", "1 when a file is not used for its faults", ["policy"], registry=registry
        )
        self._flips = Counter(
            "aegis_policy_flips", "Decisions that the candidate would make otherwise", ["candidate"], registry=registry
        )
        self.show_candidate(None)
        for policy in ("enforced", "candidate"):
            self.show_policy_fault(policy, faulty=False)
        for verdict in ("opens", "closes"):
            self._flips.labels(verdict)
        Info("aegis_build", "What is running", registry=registry).info(
            {"version": version, "python": platform.python_version()}
        )
        ProcessCollector(registry=registry)

    def count_request(self, route: str, outcome: str) -> None:
        """`route`: a configured route's id, or "none"; `outcome`: a Reason, "forwarded" or "client_left"."""
        counter = self._requests.get((route, outcome))
        if counter is None:  # labels() takes three times as long as what it finds
            counter = self._requests[route, outcome] = self._request.labels(route, outcome)
        counter.inc()

    def count_alarm(self, alarm: str) -> None:
        """`alarm`: the action of its audit event."""
        self._alarms.labels(alarm).inc()

    def count_verification(self, remembered: bool) -> None:
        """`remembered`: memory alone decided."""
        (self._verified_by_memory if remembered else self._verified_by_database).inc()

    def count_provider_reading(self, worked: bool) -> None:
        self._provider_readings[worked].inc()

    def count_exchange_ended(self, reason: Reason) -> None:
        counter = self._ended.get(reason)
        if counter is None:
            counter = self._ended[reason] = self._exchanges_ended.labels(reason)
        counter.inc()

    def count_upstream_error(self, upstream: str, reason: Reason) -> None:
        self._upstream_errors.labels(upstream, reason).inc()

    def show_exchanges(self, kind: str, live: int) -> None:
        self._exchanges.labels(kind).set(live)

    def show_lease(self, trust: Trust, remaining_seconds: float) -> None:
        for state in Trust:
            self._lease.labels(state).set(state is trust)
        self._lease_seconds.set(max(0.0, remaining_seconds))

    def show_bounds(self, sent_seconds: float, silent_seconds: float) -> None:
        self._bounds.labels("sent").set(sent_seconds)
        self._bounds.labels("silent").set(silent_seconds)

    def show_upstream(self, upstream: str, *, idle: int, active: int) -> None:
        self._upstream_connections.labels(upstream, "idle").set(idle)
        self._upstream_connections.labels(upstream, "active").set(active)

    def show_policy(self, revision: str) -> None:
        """Replaces the revision shown before, so that exactly one is in force."""
        self._policy.info({"revision": revision})

    def show_candidate(self, revision: str | None) -> None:
        """Replaces the revision shown before."""
        self._candidate.info({"revision": revision or ""})

    def show_policy_fault(self, policy: str, *, faulty: bool) -> None:
        """`policy`: "enforced" or "candidate"."""
        self._policy_faulty.labels(policy).set(faulty)

    def count_flip(self, *, opens: bool) -> None:
        self._flips.labels("opens" if opens else "closes").inc()

    def add_probe(self, probe: Callable[[], None]) -> None:
        """`probe` is called before every scrape to set gauges from what the rooms count themselves."""
        self._probes.append(probe)

    def render(self) -> tuple[bytes, str]:
        """The body of `/metrics` and its content type."""
        for probe in self._probes:
            probe()
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
