"""Metrics: what a scrape shows."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.errors import Reason
from proxy.lease import Trust
from proxy.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


def scrape(metrics: Metrics) -> dict[str, float]:
    """Every sample as `name{label=value,…}` and its value."""
    text, _ = metrics.render()
    return {
        f"{sample.name}{{{','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_outcome(metrics: Metrics) -> None:
    metrics.count_request("mcp", "forwarded")
    metrics.count_request("mcp", "forwarded")
    metrics.count_request("mcp", Reason.KEY_REVOKED)
    metrics.count_request("none", Reason.ROUTE_UNKNOWN)
    shown = scrape(metrics)
    assert shown["aegis_requests_total{outcome=forwarded,route=mcp}"] == 2
    assert shown["aegis_requests_total{outcome=key_revoked,route=mcp}"] == 1
    assert shown["aegis_requests_total{outcome=route_unknown,route=none}"] == 1


def test_memory_shows_how_often_it_was_enough(metrics: Metrics) -> None:
    for remembered in (True, False, False):
        metrics.count_verification(remembered)
    metrics.argon2_seconds.observe(0.0035)
    shown = scrape(metrics)
    assert shown["aegis_verifications_total{by=memory}"] == 1
    assert shown["aegis_verifications_total{by=database}"] == 2
    assert shown["aegis_argon2_seconds_bucket{le=0.002}"] == 0
    assert shown["aegis_argon2_seconds_bucket{le=0.004}"] == 1


def test_exactly_one_state_of_trust_is_shown(metrics: Metrics) -> None:
    metrics.show_lease(Trust.TRUSTED, 1.5)
    assert scrape(metrics)["aegis_lease_remaining_seconds{}"] == 1.5
    metrics.show_lease(Trust.CLOSED, float("-inf"))
    shown = scrape(metrics)
    assert [shown[f"aegis_lease_state{{state={state}}}"] for state in Trust] == [0, 0, 1]
    assert shown["aegis_lease_remaining_seconds{}"] == 0


def test_a_new_policy_takes_the_place_of_the_old_one(metrics: Metrics) -> None:
    metrics.show_policy("abc")
    metrics.show_policy("def")
    policies = [name for name in scrape(metrics) if name.startswith("aegis_policy_info")]
    assert policies == ["aegis_policy_info{revision=def}"]


def test_exchanges_and_upstreams_are_shown_by_our_own_words(metrics: Metrics) -> None:
    metrics.show_exchanges("stream", 7)
    metrics.count_exchange_ended(Reason.KEY_EXPIRED)
    metrics.count_upstream_error("mcp", Reason.UPSTREAM_TIMEOUT)
    metrics.show_upstream("mcp", idle=2, active=3)
    shown = scrape(metrics)
    assert shown["aegis_exchanges_live{kind=stream}"] == 7
    assert shown["aegis_exchanges_ended_total{reason=key_expired}"] == 1
    assert shown["aegis_upstream_errors_total{reason=upstream_timeout,upstream=mcp}"] == 1
    assert shown["aegis_upstream_connections{state=idle,upstream=mcp}"] == 2
    assert shown["aegis_upstream_connections{state=active,upstream=mcp}"] == 3


def test_probes_read_the_rooms_at_every_scrape(metrics: Metrics) -> None:
    waiting = [5, 6]
    metrics.add_probe(lambda: metrics.hashing_queue.set(waiting.pop(0)))
    assert scrape(metrics)["aegis_hashing_queue{}"] == 5
    assert scrape(metrics)["aegis_hashing_queue{}"] == 6


def test_a_scrape_names_the_build_and_the_process(metrics: Metrics) -> None:
    shown = scrape(metrics)
    assert any(name.startswith("aegis_build_info{") and "version=1.2.3" in name for name in shown)
    assert shown["process_resident_memory_bytes{}"] > 0


def test_the_content_type_is_that_of_prometheus(metrics: Metrics) -> None:
    _, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")


def test_two_instances_share_nothing(metrics: Metrics) -> None:
    other = Metrics("1.2.3")
    metrics.news_heard.inc()
    metrics.list_events_dropped.inc()
    assert scrape(other)["aegis_news_heard_total{}"] == 0
    assert scrape(other)["aegis_list_events_dropped_total{}"] == 0


def test_no_candidate_shows_no_revision(metrics: Metrics) -> None:
    metrics.show_candidate("abc")
    metrics.show_candidate(None)
    assert scrape(metrics)["aegis_policy_candidate_info{revision=}"] == 1
