"""What a route says of its query, and of those who come without a key."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.envelope import parse_query, parse_target
from proxy.errors import RequestError
from proxy.identity import Owner
from proxy.policy import Allowed, Denied, Policy
from proxy.policy.rules import Decision

Routes = Callable[[str], Policy]

EVERYTHING = frozenset({"*"})
NOTHING: frozenset[str] = frozenset()

ROUTES = """\
- id: list
  path: /v1/workflows
  methods: [GET]
  upstream: api
  require: workflow:list
  query:
    tenant_id: { absent_or: "{owner.tenant}" }
    user_id: { equals: "{owner.subject}" }
    scope: { one_of: [user, tenant, "{owner.tenant}"] }
    page: { absent_or: "1" }
  repeatable: [tag, "ids[]"]
- { id: run, path: "/v1/workflows/{name}/run", methods: [POST], upstream: api, require: "workflow:run:{name}" }
- { id: health, path: /health, methods: [GET], upstream: api, allow: anyone, query: { format: { absent_or: json } } }
- { id: closed, path: /v1/closed, methods: [GET], upstream: api, allow: any-key }
"""
OWN = "user_id=user-1&scope=user"


def decide(
    policy: Policy, raw: str, grants: frozenset[str], owner: Owner, method: str = "GET"
) -> Decision | RequestError:
    """As the front door does: what is refused unread never comes to a decision."""
    target = parse_target(raw)
    match = policy.find_route(target.path)
    assert match is not None
    try:
        query = parse_query(target.query, match.route.query_names, match.route.repeatable)
    except RequestError as error:
        return error
    return policy.decide_http(match, method, query, grants, owner)


@pytest.mark.parametrize(
    "query",
    [
        OWN,
        "scope=acme&user_id=user-1",
        f"{OWN}&tenant_id=acme",
        f"{OWN}&tenant%5Fid=ac%6De",
        f"{OWN}&page=1",
        f"{OWN}&tag=a&tag=b&ids%5B%5D=1&ids%5B%5D=2",
        f"{OWN}&limit=10&q=a+b",
    ],
)
def test_a_query_that_meets_every_condition_is_allowed(with_routes: Routes, owner: Owner, query: str) -> None:
    decision = decide(with_routes(ROUTES), f"/v1/workflows?{query}", frozenset({"workflow:list"}), owner)
    assert decision == Allowed("list", ("workflow:list",))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("scope=user", "its query member user_id to be the key owner's own user id"),
        ("user_id=user-2&scope=user", "its query member user_id to be the key owner's own user id"),
        ("user_id=&scope=user", "its query member user_id to be the key owner's own user id"),
        (f"{OWN}&tenant_id=other", "its query member tenant_id to be absent or the key owner's own tenant"),
        (f"{OWN}&tenant_id=", "its query member tenant_id to be absent or the key owner's own tenant"),
        (f"{OWN}&tenant_id=ACME", "its query member tenant_id to be absent or the key owner's own tenant"),
        (
            "user_id=user-1&scope=global",
            "its query member scope to be the key owner's own tenant or 'tenant' or 'user'",
        ),
        ("user_id=user-1", "its query member scope to be the key owner's own tenant or 'tenant' or 'user'"),
        (f"{OWN}&page=01", "its query member page to be absent or '1'"),
    ],
)
def test_a_query_that_fails_a_condition_is_denied_with_what_it_should_be(
    with_routes: Routes, owner: Owner, query: str, why: str
) -> None:
    decision = decide(with_routes(ROUTES), f"/v1/workflows?{query}", EVERYTHING, owner)
    assert decision == Denied("list", f"request GET /v1/workflows wants {why}")


def test_the_query_is_judged_before_the_scopes(with_routes: Routes, owner: Owner) -> None:
    decision = decide(with_routes(ROUTES), f"/v1/workflows?{OWN}&tenant_id=other", NOTHING, owner)
    assert isinstance(decision, Denied)
    assert decision.required == ()
    decision = decide(with_routes(ROUTES), f"/v1/workflows?{OWN}", NOTHING, owner)
    assert isinstance(decision, Denied)
    assert decision.smallest == "workflow:list"


@pytest.mark.parametrize(
    "query",
    ["tenant=acme", "tenantId=acme", "Scope=user", "tag=1&Tag=2", "page=1&page=1", "limit=1&limit=1", "token=x"],
)
def test_other_members_and_spellings_are_refused_unread(with_routes: Routes, owner: Owner, query: str) -> None:
    decision = decide(with_routes(ROUTES), f"/v1/workflows?{OWN}&{query}", EVERYTHING, owner)
    assert isinstance(decision, RequestError)


def test_a_route_without_conditions_takes_no_tenant(with_routes: Routes, owner: Owner) -> None:
    decision = decide(with_routes(ROUTES), "/v1/closed?tenant_id=acme", EVERYTHING, owner)
    assert isinstance(decision, RequestError)
    assert decide(with_routes(ROUTES), "/v1/closed?a=b", NOTHING, owner) == Allowed("closed", ())


names = st.sampled_from(["tenant_id", "user_id", "scope", "page", "tag", "Tenant_ID", "tenant", "ids%5B%5D", "q"])
values = st.sampled_from(["acme", "other", "user-1", "user", "tenant", "1", ""])
pairs = st.lists(st.tuples(names, values), max_size=4)


@given(pairs, pairs)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_adding_members_to_a_query_never_widens(
    with_routes: Routes, owner: Owner, base: list[tuple[str, str]], more: list[tuple[str, str]]
) -> None:
    """But for the two that this route insists on: they stand there from the beginning."""
    policy = with_routes(ROUTES)
    wanted = [("user_id", "user-1"), ("scope", "user")]
    short, long = [*wanted, *base], [*wanted, *base, *more]
    before, after = (
        decide(policy, "/v1/workflows?" + "&".join(f"{name}={value}" for name, value in query), EVERYTHING, owner)
        for query in (short, long)
    )
    assert isinstance(before, Allowed) or not isinstance(after, Allowed)


# Names in paths.


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("nightly-etl", "nightly-etl"),
        ("nightly%20etl", "nightly etl"),
        ("n%C3%A4chtlich", "nächtlich"),
        ("%E5%A4%9C", "夜"),
        ("%F0%9F%8C%99", "🌙"),
        ("a:b", "a:b"),
        ("a%3Ab", "a:b"),
        ("a+b", "a+b"),
        ("a%2Bb", "a+b"),
        ("%22a%22", '"a"'),
    ],
)
def test_a_grant_names_a_path_as_it_names_a_tools_argument(
    with_routes: Routes, owner: Owner, segment: str, name: str
) -> None:
    policy = with_routes(ROUTES)
    path, scope = f"/v1/workflows/{segment}/run", f"workflow:run:{name}"
    assert decide(policy, path, frozenset({scope}), owner, "POST") == Allowed("run", (scope,))
    if segment != name:
        assert isinstance(decide(policy, path, frozenset({f"workflow:run:{segment}"}), owner, "POST"), Denied)


@given(
    name=st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\%;?#"), min_size=1, max_size=8)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_names_in_a_path_stay_two(with_routes: Routes, owner: Owner, name: str) -> None:
    policy = with_routes(ROUTES)
    segment = "".join(c if c.isascii() and (c.isalnum() or c in "-._~") else _escape(c) for c in name)
    if segment in (".", ".."):
        return
    match = policy.find_route(parse_target(f"/v1/workflows/{segment}/run").path)
    assert match is not None
    assert match.path_params == {"name": name}


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


# Without a key.


def test_a_public_route_needs_no_key_and_judges_its_query(with_routes: Routes) -> None:
    policy = with_routes(ROUTES)
    match = policy.find_route("/health")
    assert match is not None
    assert match.route.public
    assert policy.decide_public(match, "GET", {}) == Allowed("health", ())
    assert policy.decide_public(match, "GET", {"format": "json"}) == Allowed("health", ())
    refused = policy.decide_public(match, "GET", {"format": "yaml"})
    assert refused == Denied("health", "request GET /health wants its query member format to be absent or 'json'")
    assert policy.decide_public(match, "POST", {}) == Denied(None, "no rule allows request POST /health")


def test_a_public_route_is_open_to_every_key_too(with_routes: Routes, owner: Owner) -> None:
    assert decide(with_routes(ROUTES), "/health", NOTHING, owner) == Allowed("health", ())


def test_every_other_route_needs_a_key(with_routes: Routes) -> None:
    policy = with_routes(ROUTES)
    for path in ("/v1/workflows", "/v1/closed", "/v1/workflows/x/run"):
        match = policy.find_route(path)
        assert match is not None
        assert not match.route.public
        assert policy.decide_public(match, "GET", {}) == Denied(None, f"request GET {match.route.path} needs a key")
