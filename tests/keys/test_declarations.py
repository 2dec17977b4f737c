"""Keys declared in a file, held against those that are there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.keys.changes import Patch
from proxy.keys.constraints import UNCONSTRAINED
from proxy.keys.declarations import (
    DeclarationError,
    DeclaredKey,
    Step,
    parse_declaration,
    plan_pruning,
    plan_steps,
)
from proxy.keys.owners import OwnerSummary
from proxy.keys.store import KeySummary
from proxy.policy import Policy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PRESENT = KeySummary(
    "key000000001", "ci", "ada", "default", "pro", None, ("agent:list", "workflow:run"), "active", None, NOW, "test",
    None, None, None, None,
)  # fmt: skip


def plan(policy: Policy, *present: KeySummary, **changes: Any) -> Step:
    key = {"name": "ci", "owner": "ada", "scopes": ["agent:list", "workflow:run"], "expires": "never", **changes}
    (step,) = plan_steps(parse_declaration({"version": 1, "keys": [key]}), present, [ADA], policy, "test", NOW)
    return step


ADA = OwnerSummary("an id", "ada", "local", "default", "pro", 1, NOW, None, 1)


def test_what_is_not_there_is_minted(policy: Policy) -> None:
    elsewhere = (
        replace(PRESENT, owner="bob"), replace(PRESENT, name="other"), replace(PRESENT, issuer="idp"),
        replace(PRESENT, status="revoked"),
    )  # fmt: skip
    step = plan(policy, *elsewhere, expires="7d", constraints={"max_calls": 2})
    assert (step.present, step.patch, step.words) == (None, None, ("mint",))
    assert step.mint is not None
    assert step.mint.expires_at == NOW + timedelta(days=7)
    assert step.mint.constraints.form() == {"max_calls": 2}


@pytest.mark.parametrize(
    ("present", "changes", "patch", "words"),
    [
        ({}, {}, None, ()),
        ({}, {"scopes": ["workflow:run", "agent:list"]}, None, ()),
        ({}, {"expires": "90d"}, None, ()),
        ({"expires_at": NOW}, {"expires": "90d"}, None, ()),
        ({}, {"scopes": ["agent:list"]}, Patch(scopes=("agent:list",)), ("scopes",)),
        ({}, {"scopes": [], "preset": "execution"}, Patch(preset="execution"), ("scopes",)),
        ({"expires_at": NOW}, {}, Patch(expires_at="never"), ("expires_at",)),
        ({}, {"expires": "2127-01-31"}, Patch(expires_at=datetime(2127, 1, 31, tzinfo=UTC)), ("expires_at",)),
        ({"constraints": {"max_calls": 2}}, {}, Patch(constraints=UNCONSTRAINED), ("constraints",)),
        ({"constraints": {"unreadable": "[null]"}}, {}, Patch(constraints=UNCONSTRAINED), ("constraints",)),
        ({}, {"disabled": True}, None, ("disable",)),
        ({"status": "disabled"}, {}, None, ("enable",)),
        ({"status": "disabled"}, {"disabled": True}, None, ()),
        ({"status": "owner disabled"}, {}, None, ()),
    ],
)
def test_what_is_there_is_changed_where_it_differs(
    present: dict[str, Any], changes: dict[str, Any], patch: Patch | None, words: tuple[str, ...], policy: Policy
) -> None:
    there = replace(PRESENT, **present)
    step = plan(policy, there, **changes)
    assert (step.present, step.mint, step.patch, step.words) == (there, None, patch, words)


def test_the_active_key_of_a_name_is_the_one_that_is_meant(policy: Policy) -> None:
    disabled = replace(PRESENT, id="key000000002", status="disabled", created_at=NOW + timedelta(days=1))
    for order in ((PRESENT, disabled), (disabled, PRESENT)):
        assert plan(policy, *order).present == PRESENT


@pytest.mark.parametrize(
    ("present", "changes", "text"),
    [
        ({"status": "expired"}, {}, "ada/ci: key key000000001 has expired: revoke it"),
        ({}, {"tier": "free"}, "the owner has tier 'pro', not 'free'"),
        ({}, {"tenant": "acme"}, "the owner has tenant 'default', not 'acme'"),
        ({}, {"preset": "execution"}, "either a preset or at least one scope"),
        ({}, {"expires": "soon"}, "expiry 'soon'"),
        ({}, {"name": " ci"}, "1 to 64 printable characters"),
        ({}, {"role": "aegis:admin"}, "has role None: a key keeps the one it was minted with"),
        ({"name": "other"}, {"tenant": "acme"}, "the owner has tenant 'default', not 'acme'"),
        ({"name": "other"}, {"owner": "o" * 256}, "the owner has 1 to 255 printable characters"),
        ({"name": "other"}, {"owner": "bob", "tier": "platinum"}, "unknown tier 'platinum'"),
        ({"name": "other"}, {"role": ""}, "a role has 1 to 64 printable characters"),
    ],
)
def test_what_cannot_be_made_so_is_a_fault(
    present: dict[str, Any], changes: dict[str, Any], text: str, policy: Policy
) -> None:
    with pytest.raises(DeclarationError, match=text):
        plan(policy, replace(PRESENT, **present), **changes)


def test_every_fault_is_told_at_once(policy: Policy) -> None:
    keys = [{"name": name, "owner": "ada", "preset": "nope"} for name in ("one", "two")]
    with pytest.raises(DeclarationError) as caught:
        plan_steps(parse_declaration({"version": 1, "keys": keys}), [], [], policy, "test", NOW)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["ada/one", "ada/two"]


def test_the_policy_s_longest_life_holds_for_what_is_made_or_changed(policy: Policy) -> None:
    short = replace(policy, longest_expiry=timedelta(days=30))
    for present, expires in (((), "never"), ((), "90d"), ((PRESENT,), "2026-12-31")):
        with pytest.raises(DeclarationError, match=r"ada/ci: .*longest_expiry"):
            plan(short, *present, expires=expires)
    assert plan(short, PRESENT, expires="never").words == ()
    made = plan(short, expires=None)
    assert made.mint is not None
    assert made.mint.expires_at == NOW + timedelta(days=30)
    assert plan(short, PRESENT, expires="2026-06-15").words == ("expires_at",)


def declare(*keys: dict[str, Any]) -> tuple[DeclaredKey, ...]:
    return parse_declaration({"version": 1, "keys": [{"owner": "bob", "preset": "execution", **key} for key in keys]})


def test_a_new_owner_gets_what_any_of_its_keys_says_whichever_is_minted_first(policy: Policy) -> None:
    keys = declare({"name": "a"}, {"name": "b", "tier": "free"}, {"name": "c", "tenant": "acme", "tier": "free"})
    mints = [step.mint for step in plan_steps(keys, [], [ADA], policy, "test", NOW)]
    assert [(mint.tenant, mint.tier) for mint in mints if mint is not None] == [("acme", "free")] * 3


def test_an_owner_s_keys_have_to_agree_with_each_other(policy: Policy) -> None:
    keys = declare({"name": "a", "tier": "pro"}, {"name": "b", "tier": "free"}, {"name": "c", "preset": "nope"})
    with pytest.raises(DeclarationError) as caught:
        plan_steps(keys, [], [ADA], policy, "test", NOW)
    first, second = str(caught.value).splitlines()
    assert first == "bob/b: the owner has tier 'pro', not 'free'"
    assert second.startswith("bob/c: unknown preset 'nope'")


def test_what_is_changed_is_told_with_what_it_was(policy: Policy) -> None:
    end = datetime(2127, 1, 31, tzinfo=UTC)
    step = plan(
        policy, PRESENT, scopes=["agent:list", "agent:read"], expires="2127-01-31", constraints={"max_calls": 2}
    )
    assert step.differences == {
        "scopes": (("agent:list", "workflow:run"), ("agent:list", "agent:read")),
        "expires_at": ("never", end),
        "constraints": ({}, {"max_calls": 2}),
    }
    execution = policy.presets["execution"].scopes
    named = plan(policy, replace(PRESENT, scopes=execution), scopes=[], preset="execution")
    assert named.differences == {"scopes": ("custom", "execution")}
    assert plan(policy).differences == plan(policy, PRESENT, disabled=True).differences == {}


def test_pruning_disables_the_active_keys_of_the_file_s_owners_that_it_does_not_name(policy: Policy) -> None:
    changes: dict[str, dict[str, Any]] = {
        "stray": {}, "ci": {"issuer": "idp"}, "theirs": {"owner": "bob"}, "resting": {"status": "disabled"},
        "dead": {"status": "revoked"}, "over": {"status": "expired"}, "made by a key": {"parent_id": PRESENT.id},
    }  # fmt: skip
    others = [replace(PRESENT, id=f"other {name}", name=name, **changed) for name, changed in changes.items()]
    declared = parse_declaration({"version": 1, "keys": [{"name": "ci", "owner": "ada", "preset": "execution"}]})
    (step,) = plan_pruning(declared, [PRESENT, *others])
    assert (step.label, step.present, step.words) == ("ada/stray", others[0], ("disable",))
