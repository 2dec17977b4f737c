"""Warnings of ends: a header for each answer, a line for each key and day."""

from __future__ import annotations

import io

from proxy.clock import DatabaseClock
from proxy.expiry import DAY_SECONDS
from proxy.expiry_warnings import ExpiryWarnings
from proxy.logs import configure_logging
from tests.clocks import ManualClock
from tests.records import form_key_id

KEY, OTHER = form_key_id(1), form_key_id(2)
NOW = 1_796_083_200.0  # midnight, by the database's clock


def form_warnings() -> tuple[ExpiryWarnings, ManualClock, io.BytesIO]:
    clock, database_clock, heard = ManualClock(wall=0.0), DatabaseClock(), io.BytesIO()
    database_clock.observe(NOW, clock.boot(), clock.boot())
    configure_logging("warning", heard)
    return ExpiryWarnings(clock, database_clock), clock, heard


def test_the_header_names_the_end_by_the_databases_clock() -> None:
    warnings, _, _ = form_warnings()
    assert warnings.warn(KEY, NOW + 3_600) == (("API-Key-Expires-At", "2026-12-01T01:00:00Z"),)
    assert warnings.warn(KEY, NOW + 15 * DAY_SECONDS) == ()
    assert warnings.warn(KEY, NOW) == ()
    assert warnings.warn(KEY, None) == ()


def test_the_log_tells_of_a_key_once_a_day() -> None:
    warnings, clock, heard = form_warnings()
    for key_id in (KEY, KEY, OTHER, KEY):
        warnings.warn(key_id, NOW + 3 * DAY_SECONDS)
    assert heard.getvalue().count(b'"event":"key_ends_soon"') == 2
    clock.advance(DAY_SECONDS)
    for _ in range(2):
        warnings.warn(KEY, NOW + 3 * DAY_SECONDS)
    lines = heard.getvalue().splitlines()
    assert [line.count(KEY.encode()) for line in lines] == [1, 0, 1]
    assert b'"ends_at":"2026-12-04T00:00:00Z"' in lines[2]
