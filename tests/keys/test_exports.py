"""Exports of the platform's keys: read strictly, and every fault at once with its line and its mend."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Fault
from proxy.keys.exports import MAX_FAULTS, ExportedKey, ExportError, Format, parse_export
from proxy.policy import Policy

HEADER = "key_hash,name,user_id,scopes,expires_at,status"
DIGEST = "ab" * 32
NOW = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
ROW = {"key_hash": DIGEST, "name": "ci", "user_id": "ada", "scopes": ["agent:list"]}


def parse(
    policy: Policy, text: str, form: Format = "csv", renamed: Mapping[str, Sequence[str]] | None = None
) -> list[ExportedKey]:
    return parse_export(text.splitlines(keepends=True), form, policy, "keys", renamed or {}, NOW)


def refuse(
    policy: Policy, text: str, form: Format = "csv", renamed: Mapping[str, Sequence[str]] | None = None
) -> list[Fault]:
    with pytest.raises(ExportError) as refused:
        parse(policy, text, form, renamed)
    return list(refused.value.faults)


def write(**values: object) -> str:
    return json.dumps(ROW | values)


def test_the_platform_s_own_export_is_read_as_it_is(policy: Policy) -> None:
    """Columns and forms as `\\copy api_keys TO … CSV HEADER` writes them."""
    text = (
        "id,user_id,name,key_hash,scopes,expires_at,last_used_at,created_at,status,tenant_id,aegis_role,zaru_tier\n"
        f'f3b1,ada,"ci, nightly",{DIGEST},"{{agent:list,""workflow:run:a b""}}",2127-01-31 00:00:00+00,,'
        "2026-01-31 12:00:00.5+02,active,acme,aegis:admin,pro\r\n"
    )
    assert parse(policy, text) == [
        ExportedKey(
            2, bytes.fromhex(DIGEST), "ci, nightly", "ada", ("agent:list", "workflow:run:a b"), "acme", "pro",
            "aegis:admin",
            datetime(2127, 1, 31, tzinfo=UTC), datetime(2026, 1, 31, 10, 0, 0, 500_000, UTC), "active",
        )
    ]  # fmt: skip


def test_json_lines_say_the_same(policy: Policy) -> None:
    text = write(status="revoked", expires_at="2127-01-31T00:00:00+00:00", tenant_id=None, id=7) + "\n\n"
    (key,) = parse(policy, text, "jsonl")
    assert (key.line, key.owner, key.scopes, key.status) == (1, "ada", ("agent:list",), "revoked")
    assert (key.tenant, key.tier, key.expires_at) == (None, None, datetime(2127, 1, 31, tzinfo=UTC))
    assert DIGEST not in repr(key)


def test_a_row_over_several_lines_is_named_by_its_first(policy: Policy) -> None:
    text = f'{HEADER}\n{DIGEST},"a\nb",ada,{{agent:list}},,\n{"cd" * 32},ok,ada,{{agent:list}},,odd\n'
    assert [fault.line for fault in refuse(policy, text)] == [2, 4]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1), min_size=1))
def test_arrays_are_read_as_postgres_writes_them(policy: Policy, scopes: list[str]) -> None:
    quoted = ",".join('"' + scope.replace("\\", "\\\\").replace('"', '\\"') + '"' for scope in scopes)
    array = "{" + quoted + "}"
    row = f'{DIGEST},ci,ada,"{array.replace(chr(34), chr(34) * 2)}",,\n'
    renamed = {scope: ["agent:list"] for scope in scopes}
    (key,) = parse_export([f"{HEADER}\n", row], "csv", policy, "keys", renamed, NOW)
    assert key.scopes == ("agent:list",)


BAD: list[tuple[dict[str, object], str, str]] = [
    ({"key_hash": None}, "key_hash: is missing", "64 hexadecimal digits"),
    ({"key_hash": "ab" * 31}, "no SHA-256", "64 hexadecimal digits"),
    ({"key_hash": "zz" * 32}, "no SHA-256", "64 hexadecimal digits"),
    ({"key_hash": 5}, "key_hash: is no text", "64 hexadecimal digits"),
    ({"name": ""}, "1 to 64 printable characters", "rename it"),
    ({"name": "n" * 65}, "1 to 64 printable characters", "rename it"),
    ({"name": "a\u202eb"}, "1 to 64 printable characters", "rename it"),
    ({"name": None}, "name: is missing", "rename it"),
    ({"user_id": "u" * 256}, "1 to 255 printable", "whose key it is"),
    ({"scopes": []}, "there are none", "leave the row out"),
    ({"scopes": "agent:list"}, "is not of the form {agent:list,workflow:run}", "give it a scope"),
    ({"scopes": [1]}, "is no text", "give it a scope"),
    ({"scopes": ["agent:lst"]}, "agent:lst", "--map agent:lst=SCOPE"),
    ({"tenant_id": ""}, "1 to 255 printable", "the tenant the owner has"),
    ({"zaru_tier": "platinum"}, "unknown tier 'platinum'", "a tier of the policy"),
    ({"aegis_role": "r" * 65}, "1 to 64 printable", "or empty: none"),
    ({"expires_at": "2127-01-31"}, "no time with its offset", "2027-01-31T00:00:00Z"),
    ({"expires_at": "infinity"}, "no time with its offset", "or empty: never"),
    ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at", "2027-01-31T00:00:00Z"),
    ({"expires_at": 1_800_000_000}, "is no text", "2027-01-31T00:00:00Z"),
    ({"created_at": "yesterday"}, "no time with its offset", "or empty: now"),
    ({"status": "suspended"}, "is none that a key has", "active, disabled or revoked"),
    ({"status": ["active"]}, "is none that a key has", "active, disabled or revoked"),
    ({"owner": "ada"}, "an unknown member 'owner'", "members are key_hash, name, user_id"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message", "mend"), BAD)
def test_a_bad_value_is_told_with_its_line_and_its_mend(
    policy: Policy, values: dict[str, object], message: str, mend: str
) -> None:
    text = (
        f"{write()}\n{write(key_hash='cd' * 32, name='second', **{k: v for k, v in values.items() if k not in ROW})}\n"
    )
    if set(values) & set(ROW):
        text = f"{write()}\n{write(**({'key_hash': 'cd' * 32, 'name': 'second'} | values))}\n"
    (fault,) = refuse(policy, text, "jsonl")
    assert fault.line == 2
    assert message in fault.message
    assert mend in fault.mend


def test_every_fault_is_told_at_once_in_the_order_of_lines(policy: Policy) -> None:
    rows = ["x,ci,ada,{agent:list},,", f"{DIGEST},ok,ada,{{agent:read}},,", f"{DIGEST},,ada,{{}},soon,gone"]
    faults = refuse(policy, "\n".join([HEADER, *rows, "too,few"]))
    assert [(fault.line, fault.message.partition(":")[0]) for fault in faults] == [
        (2, "key_hash"), (4, "name"), (4, "scopes"), (4, "expires_at"), (4, "status"),
        (5, "2 fields, where the header has 6"),
    ]  # fmt: skip


def test_what_two_rows_may_not_share_is_told_with_the_other_s_line(policy: Policy) -> None:
    rows = [
        write(zaru_tier="pro", tenant_id="acme"),
        write(key_hash="cd" * 32, zaru_tier="free", tenant_id="other"),
        write(key_hash="CD" * 32, name="third"),
        write(key_hash="ef" * 32, user_id="bob"),
        write(key_hash="01" * 32, status="revoked"),
    ]
    assert [(fault.line, fault.message) for fault in refuse(policy, "\n".join(rows), "jsonl")] == [
        (2, "name: ada has an active key 'ci' in line 1"),
        (2, "tenant_id: 'other', but 'acme' in line 1"),
        (2, "zaru_tier: 'free', but 'pro' in line 1"),
        (3, "key_hash: the same as in line 2"),
    ]


def test_unknown_scopes_are_listed_once_with_how_many_have_them(policy: Policy) -> None:
    rows = [
        write(
            key_hash=f"{number:064x}",
            name=f"key {number}",
            scopes=["agent:list", "agent:old", "team:admin"][: number + 1],
        )
        for number in range(4)
    ]
    faults = refuse(policy, "\n".join(rows), "jsonl")
    assert [(fault.line, fault.mend) for fault in faults] == [
        (2, "--map agent:old=SCOPE of the policy"), (3, "--map team:admin=SCOPE of the policy"),
    ]  # fmt: skip
    assert "in 3 keys from here on" in faults[0].message
    renamed = {"agent:old": ["agent:read"], "team:admin": ["team:read", "team:manage"]}
    keys = parse(policy, "\n".join(rows), "jsonl", renamed)
    assert keys[3].scopes == ("agent:list", "agent:read", "team:read", "team:manage")
    (fault,) = refuse(policy, rows[1], "jsonl", {"agent:old": ["agent:new"]})
    assert "agent:new" in fault.message


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", []),
        ("key_hash,name,user_id\n", ["there is no column scopes"]),
        (f"{HEADER},colour\n", ["an unknown column 'colour'"]),
        (f"{HEADER},name\n", ["a column stands there twice"]),
        (f'{HEADER}\n{DIGEST},"ci,ada,{{agent:list}},,\n', ["this is no CSV: unexpected end of data"]),
    ],
)
def test_a_table_that_is_none_is_refused(policy: Policy, text: str, messages: list[str]) -> None:
    if not messages:
        assert parse(policy, text) == []
    else:
        assert [fault.message for fault in refuse(policy, text)] == messages


def test_a_living_key_lives_no_longer_than_the_policy_lets_any(policy: Policy) -> None:
    short = replace(policy, longest_expiry=timedelta(days=30))
    ends = ["2027-03-01T00:00:00Z", "2027-03-03T00:00:00Z", None, "2020-01-01T00:00:00Z"]
    rows = [write(key_hash=f"{number:064x}", name=f"key {number}", expires_at=end) for number, end in enumerate(ends)]
    faults = refuse(short, "\n".join([*rows, write(status="revoked")]), "jsonl")
    assert [(fault.line, "longest_expiry" in fault.message) for fault in faults] == [(2, True), (3, True)]
    assert len(parse(policy, "\n".join(rows), "jsonl")) == 4


@pytest.mark.parametrize("text", ["[1]", "{", '{"name": "a", "name": "b"}', '"text"', "[" * 100_000, "NaN"])
def test_a_line_that_is_no_object_is_refused(policy: Policy, text: str) -> None:
    faults = refuse(policy, f"{text}\n{write()}\n", "jsonl")
    assert [fault.line for fault in faults] == [1]
    assert "no JSON object" in faults[0].message


def test_a_whole_key_in_place_of_its_digest_is_called_what_it_is_and_never_quoted(policy: Policy) -> None:
    token = "aegis_" + "S3cret" * 6 + "abcd"
    for text in (f"{HEADER}\n{token},ci,ada,{{agent:list}},,\n", f"{token},ci,ada,{{agent:list}},,\n"):
        faults = refuse(policy, text)
        assert token not in "".join(map(str, faults))
    assert "revoke it" in str(refuse(policy, write(key_hash=token), "jsonl")[0])


def test_reading_is_given_up_after_many_faults(policy: Policy) -> None:
    rows = (f"{DIGEST},,ada,{{agent:list}},,\n" for _ in range(10 * MAX_FAULTS))
    with pytest.raises(ExportError) as refused:
        parse_export([f"{HEADER}\n", *rows], "csv", policy, "keys", {}, NOW)
    assert len(refused.value.faults) == MAX_FAULTS + 1
    assert "given up" in refused.value.faults[-1].message


@given(st.text())
def test_no_text_does_more_than_be_refused(policy: Policy, text: str) -> None:
    forms: Any = ("csv", "jsonl")
    for form in forms:
        with suppress(ExportError):
            parse_export(text.splitlines(keepends=True), form, policy, "keys", {}, NOW)
