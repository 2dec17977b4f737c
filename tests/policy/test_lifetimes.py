"""`longest_expiry`: its words, and what they mean."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from proxy.policy import parse_policy
from proxy.policy.model import describe_lifetime, parse_lifetime, policy_schema

HEAD = "version: 1\ndefault_tier: all\nscopes: {}\npresets: {}\ntiers: { all: [] }\n"


@pytest.mark.parametrize(
    ("text", "days", "words"),
    [("1d", 1, "1 days"), ("90d", 90, "90 days"), ("9999d", 9_999, "9999 days"), ("1y", 365, "365 days"),
     ("99y", 36_135, "36135 days")],
)  # fmt: skip
def test_days_and_years_of_365_are_lifetimes(text: str, days: int, words: str) -> None:
    policy = parse_policy(f"{HEAD}longest_expiry: {text}\nroutes: []\n...\n", "policy.yaml")
    assert policy.longest_expiry == timedelta(days=days)
    assert describe_lifetime(policy.longest_expiry) == words


@pytest.mark.parametrize("line", ["", "longest_expiry: never\n"])
def test_never_is_no_bound_and_the_default(line: str) -> None:
    assert parse_policy(f"{HEAD}{line}routes: []\n...\n", "policy.yaml").longest_expiry is None
    assert describe_lifetime(None) == "never"


@pytest.mark.parametrize("text", ["", "never ", "d", "01d", "1.5d", "1d\n", "\u0661d", "100y", "1Y"])
def test_the_schema_and_the_reader_refuse_the_same(text: str) -> None:
    pattern = policy_schema()["properties"]["longest_expiry"]["pattern"]
    assert re.search(pattern, text.rstrip("\n") + "x" * text.endswith("\n"), re.ASCII) is None
    with pytest.raises(ValueError, match="days or years"):
        parse_lifetime(text)
