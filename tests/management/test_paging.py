"""A cursor leads back to the place it was made of, and nothing else is one."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keys.record import Place
from proxy.management.paging import CursorError, form_key_cursor, parse_key_cursor

MOMENTS = st.datetimes(timezones=st.just(UTC))
IDS = st.from_regex(r"[0-9A-Za-z]{12}", fullmatch=True)


@given(MOMENTS, IDS)
def test_a_cursor_leads_back_to_its_place(moment: datetime, key_id: str) -> None:
    assert parse_key_cursor(form_key_cursor(Place(moment, key_id))) == Place(moment, key_id)


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        parse_key_cursor(text)


@pytest.mark.parametrize(
    "inner", ["k1.0000", "k1.000000000000;", "k999999999999999999.000000000000", "1", "k٣.000000000000"]
)
def test_what_decodes_and_means_nothing_is_refused(inner: str) -> None:
    with pytest.raises(CursorError):
        parse_key_cursor(urlsafe_b64encode(inner.encode()).decode())


def test_a_cursor_is_opaque_to_a_url() -> None:
    cursor = form_key_cursor(Place(datetime(2026, 11, 29, tzinfo=UTC) + timedelta(microseconds=1), "0123456789ab"))
    assert cursor.replace("-", "").replace("_", "").isalnum()
