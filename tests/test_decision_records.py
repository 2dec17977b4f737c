"""What a decision line says, and when it says a key's rights whole."""

from __future__ import annotations

from dataclasses import replace

from proxy.authorization import Permit
from proxy.decision_records import MAX_KEYS, MAX_SCOPES, RIGHTS_SECONDS, RightsLog, form_decision
from proxy.errors import DeniedError, Reason
from proxy.identity import Claims, KeyId, Owner, OwnerId, Principal
from proxy.messages import Message, parse_message
from proxy.policy import Policy, RouteMatch
from tests.policy.asking import EXTRA_POLICY
from tests.records import form_key_id

OWNER = Owner(OwnerId("1"), "acme", "https://id.example", "ada", "pro")
CLAIMS = Claims(("a:run:nightly-etl",), (("a:run",),))


def make_principal(claims: Claims = CLAIMS, owner: Owner = OWNER, key_id: KeyId | None = None) -> Principal:
    return Principal(key_id or form_key_id(1), owner, frozenset(), (), 1, None, 0.0, claims)


def match(path: str, policy: Policy = EXTRA_POLICY) -> RouteMatch:
    found = policy.find_route(path)
    assert found is not None
    return found


def call(name: str, arguments: str) -> Message:
    params = f'{{"name": "{name}", "arguments": {arguments}}}'
    body = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {params}}}'
    return parse_message(body.encode(), max_depth=64)


def permit(message: Message | None, scopes: tuple[str, ...]) -> Permit:
    return Permit(make_principal(), match("/mcp/v1"), "POST", message, "mcp/tool:x", scopes)


def test_what_was_not_read_is_not_written_down() -> None:
    message = call("open.door.x", '{"tenant_id": "acme", "password": "hunter2", "token": {"secret": "hunter2"}}')
    members = form_decision(match("/mcp/v1"), "/mcp/v1", message, {}, permit(message, ("a:list",)), "0123456789ab")
    assert members == {
        "path": "/mcp/v1",
        "fields": {"name": "open.door.x", "arguments": {}, "arguments.tenant_id": "acme"},
        "rights": "0123456789ab",
        "decision": "allowed",
        "rule": "mcp/tool:x",
        "scopes": ["a:list"],
    }


def test_what_is_absent_long_or_no_plain_value_is_told_apart() -> None:
    def record(arguments: str) -> object:
        message = call("open.door.x", arguments)
        return form_decision(match("/mcp/v1"), "/mcp/v1", message, {}, permit(message, ()), "")["fields"]

    known = {"name": "open.door.x", "arguments": {}}
    assert record("{}") == {**known, "arguments.tenant_id": None}
    for unsaid in ("null", "[1]", "0.5", "18446744073709551616", f'"{"x" * 201}"'):
        assert record(f'{{"tenant_id": {unsaid}}}') == known
    assert record('{"tenant_id": {"deep": 1}}') == {**known, "arguments.tenant_id": {}}
    assert record('{"Tenant_Id": "acme"}') is None


def test_a_denial_says_what_would_have_sufficed() -> None:
    data = {"rule": "rest/POST", "smallest_sufficient": "a:run:x"}
    denial = DeniedError(Reason.ROUTE_DENIED, "no", data=data)
    members = form_decision(match("/v1/a/x/run"), "/v1/a/x/run", None, {}, denial, "0123456789ab")
    assert members == {
        "path": "/v1/a/x/run",
        "fields": {},
        "rights": "0123456789ab",
        "decision": "denied",
        "rule": "rest/POST",
        "smallest": "a:run:x",
    }


def test_of_a_query_the_judged_members_are_written_down() -> None:
    members = form_decision(match("/v1/a"), "/v1/a", None, {"tenant_id": "acme"}, permit(None, ()), "")
    assert members["fields"] == {"query.tenant_id": "acme"}
    members = form_decision(match("/v1/a"), "/v1/a", None, {}, permit(None, ()), "")
    assert members["fields"] == {"query.tenant_id": None}


def test_clients_do_not_decide_how_long_a_line_is() -> None:
    long = "x" * 10_000
    path = f"/v1/a/{long}/run"
    scopes = tuple(f"a:run:{number}" for number in range(1000))
    members = form_decision(match(path), path, None, {}, permit(None, (f"a:run:{long}", *scopes)), "")
    assert members["path"] is None
    assert len(str(members)) < 1000
    assert members["scopes"] == list(scopes[: MAX_SCOPES - 1])


def test_rights_are_said_whole_when_they_are_new_and_once_an_hour() -> None:
    log = RightsLog()
    digest, members = log.note(make_principal(), 0.0)
    assert members == {
        "rights": digest, "key_id": form_key_id(1), "scopes": CLAIMS.scopes, "ancestors": CLAIMS.ancestors,
        "tier": "pro", "tenant_id": "acme", "subject": "ada",
    }  # fmt: skip
    again = Claims(tuple(CLAIMS.scopes), tuple(CLAIMS.ancestors))
    assert log.note(make_principal(), 1.0) == log.note(make_principal(again), 2.0) == (digest, None)
    assert log.note(make_principal(), RIGHTS_SECONDS) == (digest, members)


def test_rights_that_change_get_another_digest_and_equal_ones_the_same() -> None:
    log = RightsLog()
    digest, _ = log.note(make_principal(), 0.0)
    for principal in (make_principal(Claims(("a:run",))), make_principal(owner=replace(OWNER, tier="free"))):
        other, members = log.note(principal, 1.0)
        assert other != digest
        assert members is not None
    assert log.note(make_principal(key_id=form_key_id(2)), 1.0)[0] == digest


def test_keys_that_were_not_seen_for_long_are_forgotten() -> None:
    log = RightsLog()
    for number in range(MAX_KEYS + 1):
        log.note(make_principal(key_id=KeyId(f"{number:012}")), 0.0)
    assert log.note(make_principal(key_id=KeyId(f"{0:012}")), 1.0)[1] is not None
    assert log.note(make_principal(key_id=KeyId(f"{MAX_KEYS:012}")), 1.0)[1] is None
