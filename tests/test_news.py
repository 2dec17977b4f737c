"""News: what a payload says, and whether something read earlier still stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity import KeyId, OwnerId
from proxy.news import EVERYTHING, MAX_SUBJECTS, News, NewsLog, parse_news
from tests.records import ADA, BOB, form_key_id

KEY, OTHER, PARENT = form_key_id(1), form_key_id(2), form_key_id(3)
SUBJECTS = (KEY, PARENT, ADA)


# Payloads.


def test_a_trigger_s_payload_names_its_key_or_owner() -> None:
    assert parse_news(json.dumps({"v": 1, "kind": "key", "key_id": KEY, "version": 7})) == News(key_id=KEY)
    assert parse_news(json.dumps({"v": 1, "kind": "owner", "owner_id": ADA, "version": 7})) == News(owner_id=ADA)
    assert parse_news('{"v": 1, "kind": "all"}') == EVERYTHING


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "null",
        "[]",
        '"key"',
        "{}",
        '{"kind": "key"}',
        '{"kind": "owner", "key_id": "Key000000001"}',
        '{"kind": ["key"], "key_id": "Key000000001"}',
        '{"kind": "key", "key_id": null}',
        '{"kind": "key", "key_id": 7}',
        '{"kind": "key", "key_id": ["Key000000001"]}',
        '{"kind": "key", "key_id": ""}',
        '{"kind": "key", "key_id": "Key000000001\\n"}',
        '{"kind": "key", "key_id": "Key00000000\\u0000"}',
        '{"kind": "key", "key_id": "Key00000000\\ud800"}',
        '{"kind": "key", "key_id": "' + "K" * 7_900 + '"}',
        '{"kind": "owner", "owner_id": "' + "a" * 7_900 + '"}',
        '{"kind": "owner", "owner_id": "00000000-0000-4000-8000-00000000000\\u0000"}',
        '{"kind": "key", "key_id": "Key0000000',
        '{"kind": "all", "key_id": "Key000000001"}',
        "[" * 8_000,
        "1" * 8_000,
        '{"kind": ' * 1_000,
        "NaN",
        "\ufeff{}",
        "\x00",
    ],
)
def test_what_cannot_be_read_means_that_anything_may_have_changed(payload: str) -> None:
    assert parse_news(payload) == EVERYTHING


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MEMBERS = st.fixed_dictionaries(
    {"kind": st.sampled_from(["key", "owner", "all"]) | JSON},
    optional={"key_id": JSON | st.just(KEY), "owner_id": JSON | st.just(ADA)},
)


@given(st.text() | JSON.map(json.dumps) | MEMBERS.map(json.dumps))
def test_no_payload_is_an_error_and_none_names_an_id_that_cannot_be(payload: str) -> None:
    news = parse_news(payload)
    assert news == EVERYTHING or (news.key_id, news.owner_id) in [(KEY, None), (None, ADA)]


# What still stands.


@pytest.mark.parametrize(
    ("news", "current"),
    [
        (News(key_id=KEY), False),
        (News(key_id=PARENT), False),
        (News(owner_id=ADA), False),
        (EVERYTHING, False),
        (News(key_id=OTHER), True),
        (News(owner_id=BOB), True),
    ],
)
def test_news_puts_in_doubt_what_was_read_before_it_and_concerns_its_subject(news: News, current: bool) -> None:
    log = NewsLog()
    log.add(News(key_id=OTHER))
    read_at = log.sequence
    assert log.is_current(read_at, SUBJECTS)
    log.add(news)
    assert log.is_current(read_at, SUBJECTS) is current
    assert log.is_current(log.sequence, SUBJECTS)


def test_an_earlier_piece_of_news_is_not_hidden_by_a_later_one_about_somebody_else() -> None:
    log = NewsLog()
    log.add(News(key_id=KEY))
    log.add(News(key_id=OTHER))
    assert not log.is_current(0, SUBJECTS)
    assert log.is_current(1, SUBJECTS)


SOME_NEWS = st.sampled_from(
    [EVERYTHING, News(key_id=KEY), News(key_id=OTHER), News(key_id=PARENT), News(owner_id=ADA), News(owner_id=BOB)]
)


@given(st.lists(SOME_NEWS, max_size=20), st.data())
def test_the_log_answers_as_if_it_kept_every_piece_of_news(told: list[News], data: st.DataObject) -> None:
    log = NewsLog()
    for news in told:
        log.add(news)
    read_at = data.draw(st.integers(0, len(told)))
    later = told[read_at:]
    expected = not any(news == EVERYTHING or {news.key_id, news.owner_id} & set(SUBJECTS) for news in later)
    assert log.is_current(read_at, SUBJECTS) is expected


def test_a_flood_is_folded_into_everything_and_loses_nothing() -> None:
    log = NewsLog()
    log.add(News(key_id=KEY))
    for number in range(MAX_SUBJECTS - 1):
        log.add(News(owner_id=OwnerId(f"owner {number}")))
    before = log.sequence
    assert log.is_current(before, SUBJECTS)
    assert not log.is_current(0, SUBJECTS)
    assert log.is_current(0, (OTHER, BOB))

    log.add(News(key_id=KeyId("one too many")))

    assert not log.is_current(0, SUBJECTS)
    assert not log.is_current(before, SUBJECTS), "whose news was folded away cannot be told any more"
    assert log.is_current(log.sequence, SUBJECTS)
    log.add(News(key_id=KEY))
    assert not log.is_current(before + 1, SUBJECTS)
    assert log.is_current(before + 1, (OTHER, BOB))
