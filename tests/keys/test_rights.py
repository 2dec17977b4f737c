"""Who may do what to which key: each refusal with its reason, and what is nobody's to refuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from proxy.identity import KeyId, Owner, OwnerId
from proxy.keys.constraints import UNCONSTRAINED, Constraints, parse_constraints
from proxy.keys.record import KeyRecord, OwnerRecord
from proxy.keys.rights import (
    ACTION_SCOPES,
    Action,
    Caller,
    CallerError,
    RightsError,
    View,
    check_action,
    check_grant,
    check_reach,
    check_role_held,
    check_secret,
    check_tiers,
    form_caller_of_claims,
    form_caller_of_key,
    form_operator,
    get_view,
    list_grantable,
    may_act_on,
    may_administer,
    may_see,
    settle_constraints,
)
from proxy.policy import Policy
from tests.records import ADA, BOB, form_key_id, make_ancestor, make_record

ROOT, CHILD, GRANDCHILD, SIBLING = (form_key_id(number) for number in range(1, 5))
NOON, EVENING = 1_800_000_000.0, 1_800_020_000.0


def make_owner(
    owner: OwnerId = ADA, tenant: str = "default", tier: str = "pro", *, disabled: bool = False
) -> OwnerRecord:
    return OwnerRecord(Owner(owner, tenant, "https://idp", f"subject of {owner}", tier), disabled, 1)


def sign_in(policy: Policy, record: OwnerRecord | None = None, **claims: str | None) -> Caller:
    values = {"tenant_id": None, "tier": None, "role": None, **claims}
    return form_caller_of_claims(record or make_owner(), policy, **values)


def make_key(key_id: KeyId = ROOT, **values: Any) -> KeyRecord:
    return make_record(key_id, **{"tier": "pro", **values})


def make_child(**values: Any) -> KeyRecord:
    return make_key(CHILD, ancestors=(make_ancestor(ROOT),), **values)


def limit(**values: Any) -> Constraints:
    return parse_constraints(values)


# Callers


def test_a_key_holds_what_its_lineage_and_its_owners_tier_leave(policy: Policy) -> None:
    parent = make_ancestor(ROOT, scopes=("workflow:run", "agent:list", "stack:up"), expires_at=NOON)
    limits = limit(max_calls=2)
    record = make_key(CHILD, scopes=("workflow:run:a", "stack:up", "volume:read"), expires_at=EVENING,
                      ancestors=(parent,), constraints=limits)  # fmt: skip
    caller = form_caller_of_key(record, policy, 3)
    assert caller == Caller(
        f"key:{CHILD}", record.owner, frozenset({"workflow:run:a"}), NOON, (limits, UNCONSTRAINED), CHILD,
        secret_version=3, generations=2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("own", "parents", "full"), [("*", "*", True), ("*", "workflow:run", False), ("workflow:run", "*", False)]
)
def test_a_key_is_full_if_all_of_its_lineage_is(own: str, parents: str, full: bool, policy: Policy) -> None:
    record = make_key(scopes=(own,), ancestors=(make_ancestor(CHILD, scopes=(parents,)),))
    assert form_caller_of_key(record, policy).is_full is full


@pytest.mark.parametrize(
    ("stored", "claimed", "counts", "full"),
    [
        ("pro", None, "pro", True),
        ("pro", "pro", "pro", True),
        ("pro", "enterprise", "pro", True),
        ("pro", "free", "free", False),
        ("enterprise", "free", "free", False),
        ("pro", "no tier", None, False),
        ("no tier", "enterprise", None, True),
    ],
)
def test_a_claimed_tier_lowers_and_never_raises(
    stored: str, claimed: str | None, counts: str | None, full: bool, policy: Policy
) -> None:
    caller = sign_in(policy, make_owner(tier=stored), tier=claimed)
    assert caller.grants == (policy.tiers[counts] if counts else frozenset())
    assert (caller.is_full, caller.ends_at, caller.key_id) == (full, None, None)
    assert caller.actor == f"jwt:https://idp|subject of {ADA}"


@pytest.mark.parametrize(
    ("record", "claims", "reason"),
    [
        (None, {}, "owner_unknown"),
        (make_owner(disabled=True), {}, "owner_disabled"),
        (make_owner(), {"tenant_id": "acme"}, "tenant_mismatch"),
        (make_owner(), {"tenant_id": ""}, "tenant_mismatch"),
    ],
)
def test_whoever_is_not_in_the_table_as_they_say_may_not_ask(
    record: OwnerRecord | None, claims: dict[str, str], reason: str, policy: Policy
) -> None:
    values = {"tenant_id": None, "tier": None, "role": None, **claims}
    with pytest.raises(CallerError) as caught:
        form_caller_of_claims(record, policy, **values)
    assert caught.value.reason == reason


@pytest.mark.parametrize("role", [None, "", "admin", "aegis:Admin", "aegis:admin "])
def test_only_one_role_makes_an_admin(role: str | None, policy: Policy) -> None:
    assert sign_in(policy, role="aegis:admin").is_admin
    assert not sign_in(policy, role=role).is_admin


# Whom it concerns

KEYS = {
    "own": make_key(ROOT),
    "own child": make_child(),
    "own grandchild": make_key(GRANDCHILD, ancestors=(make_ancestor(CHILD), make_ancestor(ROOT))),
    "own sibling": make_key(SIBLING),
    "another's": make_key(form_key_id(8), owner=BOB),
    "another tenant's": make_key(form_key_id(9), owner=BOB, tenant="acme"),
    "own of another tenant": make_key(form_key_id(10), tenant="acme"),
    "a child that was given away": make_key(form_key_id(11), owner=BOB, ancestors=(make_ancestor(ROOT),)),
}
OWN = ["own", "own child", "own grandchild", "own sibling"]


@pytest.mark.parametrize(
    ("kind", "seen", "acted_on"),
    [
        ("key", OWN[:3], OWN[1:3]),
        ("owner", OWN, OWN),
        (
            "admin",
            [*OWN, "another's", "a child that was given away"],
            [*OWN, "another's", "a child that was given away"],
        ),
        ("operator", [*KEYS], [*KEYS]),
    ],
)
def test_tenants_owners_and_trees_are_walls(kind: str, seen: list[str], acted_on: list[str], policy: Policy) -> None:
    callers = {
        "key": form_caller_of_key(make_key(ROOT), policy),
        "owner": sign_in(policy),
        "admin": sign_in(policy, role="aegis:admin"),
        "operator": form_operator("cli:root"),
    }
    caller = callers[kind]
    assert [name for name, key in KEYS.items() if may_see(caller, key)] == seen
    assert [name for name, key in KEYS.items() if may_act_on(caller, key)] == acted_on


def test_a_view_says_what_a_list_may_hold(policy: Policy) -> None:
    assert get_view(form_caller_of_key(make_key(ROOT), policy)) == View("default", ADA, ROOT)
    assert get_view(sign_in(policy)) == View("default", ADA, None)
    assert get_view(sign_in(policy, role="aegis:admin")) == View("default", None, None)
    assert get_view(form_operator("cli:root")) == View(None, None, None)


@pytest.mark.parametrize("action", ACTION_SCOPES)
def test_each_action_takes_its_scope(action: Action, policy: Policy) -> None:
    scope = ACTION_SCOPES[action]
    policy.check_scope(scope)
    check_action(form_caller_of_key(make_key(scopes=(scope,)), policy), action)
    others = tuple(other for other in policy.tiers["pro"] if other != scope)
    with pytest.raises(RightsError) as caught:
        check_action(form_caller_of_key(make_key(scopes=others), policy), action)
    assert (caught.value.reason, caught.value.missing) == ("scope_missing", (scope,))
    assert str(caught.value) == f"this takes {scope}, which key {ROOT} does not hold"


# No way up

PARENT = make_key(scopes=("workflow:run:a", "agent:list", "stack:up"), expires_at=NOON,
                  constraints=limit(sources=["10.0.0.0/8"], max_calls=4))  # fmt: skip
WITHIN: dict[str, Any] = {
    "scopes": ["workflow:run:a"], "expires_at": NOON, "constraints": limit(sources=["10.1.0.0/16"], max_calls=4),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason", "missing"),
    [
        ({"scopes": ["workflow:run"]}, "rights_exceeded", ["workflow:run"]),
        ({"scopes": ["workflow:run:b", "agent:list"]}, "rights_exceeded", ["workflow:run:b"]),
        ({"scopes": ["workflow:run:A"]}, "rights_exceeded", ["workflow:run:A"]),
        ({"scopes": ["agent:read", "volume:read"]}, "rights_exceeded", ["agent:read", "volume:read"]),
        ({"scopes": ["*"]}, "rights_exceeded", ["*"]),
        ({"scopes": ["stack:up"]}, "rights_exceeded", ["stack:up"]),  # written into the key, and beyond the tier
        ({"expires_at": None}, "expiry_exceeded", []),
        ({"expires_at": NOON + 0.001}, "expiry_exceeded", []),
        ({"constraints": UNCONSTRAINED}, "constraints_exceeded", []),
        ({"constraints": limit(sources=["10.0.0.0/8"])}, "constraints_exceeded", []),
        ({"constraints": limit(sources=["10.0.0.0/8"], max_calls=5)}, "constraints_exceeded", []),
        ({"constraints": limit(sources=["0.0.0.0/0"], max_calls=4)}, "constraints_exceeded", []),
        ({"constraints": limit(max_calls=4)}, "constraints_exceeded", []),
    ],
)
def test_nobody_gives_what_they_do_not_hold(
    changes: dict[str, Any], reason: str, missing: list[str], policy: Policy
) -> None:
    caller = form_caller_of_key(PARENT, policy)
    check_grant(caller, policy, **WITHIN)
    with pytest.raises(RightsError) as caught:
        check_grant(caller, policy, **{**WITHIN, **changes})
    assert (caught.value.reason, [*caught.value.missing]) == (reason, missing)
    assert f"key {ROOT}" in str(caught.value)


def give(caller: Caller, policy: Policy, scopes: Iterable[str], owner: Owner | None = None) -> bool:
    try:
        check_grant(caller, policy, scopes=scopes, expires_at=None, constraints=UNCONSTRAINED, owner=owner)
    except RightsError:
        return False
    return True


def test_full_access_is_given_by_whoever_holds_all_of_the_tier(policy: Policy) -> None:
    assert give(sign_in(policy), policy, ["*"])
    assert give(form_caller_of_key(make_key(scopes=("*",)), policy), policy, ["*"])
    assert not give(sign_in(policy, tier="free"), policy, ["*"]), "the key would follow the table's tier"
    everything = tuple(policy.tiers["pro"])
    assert not give(form_caller_of_key(make_key(scopes=everything), policy), policy, ["*"]), "and tomorrow's scopes"


def test_an_admin_gives_another_owners_key_what_both_could_hold(policy: Policy) -> None:
    admin = sign_in(policy, make_owner(tier="business"), role="aegis:admin")
    free, enterprise = (make_owner(BOB, tier=tier).owner for tier in ("free", "enterprise"))
    assert give(admin, policy, ["agent:list"], free)
    assert not give(admin, policy, ["secret:read"], free)
    assert give(admin, policy, ["team:manage"], enterprise)
    assert not give(admin, policy, ["stack:up"], enterprise)
    assert not give(admin, policy, ["*"], free)


def test_what_can_do_more_than_its_changer_is_not_changed(policy: Policy) -> None:
    lowered = sign_in(policy, tier="free")
    check_reach(lowered, policy, make_key(scopes=("agent:list", "stack:up")))  # no tier of its owner's: no right
    with pytest.raises(RightsError, match=r"key Key000000001 can do more than .*: secret:read") as caught:
        check_reach(lowered, policy, make_key(scopes=("agent:list", "secret:read")))
    assert (caught.value.reason, caught.value.missing) == ("rights_exceeded", ("secret:read",))
    parent = form_caller_of_key(PARENT, policy)
    check_reach(parent, policy, make_key(CHILD, ancestors=(make_ancestor(
        ROOT, scopes=PARENT.scopes, expires_at=NOON, constraints=PARENT.constraints),)))  # fmt: skip
    for stranger, reason in (
        (make_key(CHILD, scopes=("agent:list",)), "expiry_exceeded"),
        (make_key(CHILD, scopes=("agent:list",), expires_at=NOON), "constraints_exceeded"),
    ):
        with pytest.raises(RightsError) as caught:
            check_reach(parent, policy, stranger)
        assert caught.value.reason == reason


def test_a_secret_is_its_owners(policy: Policy) -> None:
    admin = sign_in(policy, role="aegis:admin")
    for caller, key in ((admin, make_key()), (form_operator("cli:root"), make_key(owner=BOB))):
        check_secret(caller, key)
    with pytest.raises(RightsError, match="would speak in the name of") as caught:
        check_secret(admin, make_key(owner=BOB))
    assert caught.value.reason == "not_the_owner"


@pytest.mark.parametrize(
    ("role", "who", "may"),
    [
        (None, None, True), ("aegis:operator", None, False), ("aegis:operator", "aegis:admin", False),
        ("aegis:admin", None, False), ("aegis:admin", "aegis:admin", True), ("aegis:Admin", "aegis:admin", False),
    ],
)  # fmt: skip
def test_nobody_is_handed_a_role_they_do_not_have(role: str | None, who: str | None, may: bool, policy: Policy) -> None:
    key = replace(make_key(), role=role)
    check_secret(form_operator("cli:root"), key)
    for check in (check_secret, check_role_held):
        if may:
            check(sign_in(policy, role=who), key)
            continue
        with pytest.raises(RightsError, match="carries the role") as caught:
            check(sign_in(policy, role=who), key)
        assert caught.value.reason == "rights_exceeded"


@pytest.mark.parametrize(
    ("wanted", "outers", "settled"),
    [
        ({}, [], {}),
        ({"max_calls": 9}, [], {"max_calls": 9}),
        ({}, [{"max_calls": 4, "max_streams": 2}, {"max_calls": 3}], {"max_calls": 3, "max_streams": 2}),
        ({"max_calls": 1}, [{"max_calls": 4}], {"max_calls": 1}),
        ({}, [{"sources": ["10.0.0.0/8"]}, {"sources": ["10.1.0.0/16"]}, {}], {"sources": ["10.1.0.0/16"]}),
        ({"sources": ["10.2.0.0/16"]}, [{"sources": ["10.0.0.0/8"]}], {"sources": ["10.2.0.0/16"]}),
        ({}, [{"requests_per_second": 5}, {"requests_per_second": 9}], {"requests_per_second": 5.0}),
        ({}, [{"requests_per_second": 5, "burst": 2}], {"requests_per_second": 5.0, "burst": 2}),
        ({"requests_per_second": 3}, [{"requests_per_second": 5, "burst": 2}],
         {"requests_per_second": 3.0, "burst": 2}),
        ({"requests_per_second": 3}, [{"requests_per_second": 5, "burst": 20}], {"requests_per_second": 3.0}),
        ({"requests_per_second": 3, "burst": 9}, [{"requests_per_second": 5, "burst": 20}],
         {"requests_per_second": 3.0, "burst": 9}),
    ],
)  # fmt: skip
def test_what_is_left_open_is_inherited(wanted: Any, outers: list[Any], settled: Any) -> None:
    around = [parse_constraints(outer) for outer in outers]
    found = settle_constraints(parse_constraints(wanted), around)
    assert found.form() == settled
    assert all(outer.contains(found) for outer in around)


# Owners


def test_an_admin_raises_nobody_above_themselves_and_lowers_nobody_who_is(policy: Policy) -> None:
    admin = sign_in(policy, make_owner(tier="business"), role="aegis:admin")
    for tiers in (["free"], ["free", "free"], ["free", "pro"], ["free", "business"]):
        check_tiers(admin, policy, *tiers)
    for tiers in (["free", "enterprise"], ["business", "enterprise"], ["enterprise", "free"], ["enterprise"]):
        with pytest.raises(RightsError) as caught:
            check_tiers(admin, policy, *tiers)
        assert (caught.value.reason, caught.value.missing) == ("rights_exceeded", ("*",))
        check_tiers(form_operator("cli:root"), policy, *tiers)


def test_owners_are_administered_within_the_tenant_and_by_people(policy: Policy) -> None:
    mine, foreign = make_owner(BOB).owner, make_owner(BOB, "acme").owner
    admin = sign_in(policy, role="aegis:admin")
    assert [may_administer(admin, owner.tenant_id) for owner in (mine, foreign)] == [True, False]
    for other in (sign_in(policy), form_caller_of_key(make_key(), policy)):
        assert not may_administer(other, mine.tenant_id)
    assert may_administer(form_operator("cli:root"), foreign.tenant_id)


# What may be given away


def test_the_catalogue_says_what_may_be_given_and_why_the_rest_may_not(policy: Policy) -> None:
    key = form_caller_of_key(make_key(scopes=("workflow:run:b", "workflow:run:a", "agent:list", "stack:up")), policy)
    found = {entry.scope: entry for entry in list_grantable(key, policy)[0]}
    assert list(found) == list(policy.catalogue)
    assert [scope for scope, entry in found.items() if entry.may] == ["agent:list"]
    assert (found["agent:list"].title, found["agent:list"].why_not) == ("List and search agents", None)
    run = found["workflow:run"]
    assert (run.selector, run.selectors, run.why_not) == ("workflow name", ("a", "b"), f"key {ROOT} does not hold it")
    assert found["stack:up"].why_not == "the tier pro does not include it"
    lowered = {entry.scope: entry for entry in list_grantable(sign_in(policy, tier="free"), policy)[0]}
    assert lowered["secret:read"].why_not == "this sign-in is of tier free, which does not include it"
    assert lowered["agent:list"].may


def test_a_preset_may_be_given_whole_or_not_at_all(policy: Policy) -> None:
    def find(caller: Caller) -> dict[str, bool]:
        return {preset.name: preset.may for preset in list_grantable(caller, policy)[1]}

    assert find(sign_in(policy)) == dict.fromkeys(policy.presets, True)
    free = sign_in(policy, make_owner(tier="free"))
    assert find(free) == {"read-only": True, "execution": True, "developer": False, "full-access": True}
    (developer,) = (preset for preset in list_grantable(free, policy)[1] if preset.name == "developer")
    assert developer.missing == (
        "agent:deploy", "agent:generate", "workflow:deploy", "workflow:generate", "volume:create", "volume:update",
        "volume:write",
    )  # fmt: skip
    assert developer.why_not == "the tier free does not include it"
    assert not find(sign_in(policy, tier="free"))["full-access"]


@pytest.mark.parametrize("tier", ["free", "pro", "business", "enterprise"])
@pytest.mark.parametrize("claimed", [None, "free", "enterprise"])
def test_what_is_listed_as_grantable_is_granted(tier: str, claimed: str | None, policy: Policy) -> None:
    for caller in (
        sign_in(policy, make_owner(tier=tier), tier=claimed),
        form_caller_of_key(make_key(tier=tier, scopes=("workflow:run", "agent:list", "secret:read")), policy),
    ):
        scopes, presets = list_grantable(caller, policy)
        for scope in scopes:
            assert give(caller, policy, [scope.scope]) is scope.may is (scope.why_not is None)
        for preset in presets:
            assert give(caller, policy, preset.scopes) is preset.may is (preset.why_not is None)
