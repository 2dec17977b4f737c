"""Decisions made again by their lines are the decisions that were made, or cannot be told."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.authorization import Permit, authorize
from proxy.decision_records import RightsLog, form_decision
from proxy.envelope import parse_query, parse_target
from proxy.errors import DeniedError, RequestError
from proxy.identity import Claims, KeyId, Principal
from proxy.logs import render
from proxy.messages import Message, parse_message
from proxy.policy import Policy, parse_policy
from proxy.policy.questions import Question
from proxy.policy.replays import BAD_FIELDS, NO_FIELDS, NO_PATH, NO_RIGHTS, DecisionLog, Replay
from tests.policy.asking import EXTRA_POLICY, OWNER, Asking, enforce, write_policy

KEY = KeyId("0123456789ab")
TIMESTAMP = "2026-11-24T10:00:00.000000Z"


def decide(policy: Policy, question: Question, scopes: frozenset[str]) -> list[bytes]:
    """The lines that the front door leaves of one request; none of one that never came to a decision."""
    claims = Claims(tuple(sorted(scopes)))
    grants = policy.effective_scopes(claims.scopes, (), OWNER.tier)
    principal = Principal(KEY, OWNER, grants, (), 1, None, 0.0, claims)
    target = parse_target(question.target)
    match = policy.find_route(target.path)
    assert match is not None
    message: Message | None = None
    if question.rpc is not None:
        body = {"jsonrpc": "2.0", "id": 1, "method": question.rpc, "params": question.params}
        message = parse_message(json.dumps(body).encode(), max_depth=64)
    decided: Permit | DeniedError
    try:
        query = parse_query(target.query, match.route.query_names, match.route.repeatable)
    except RequestError:
        return []
    try:
        decided = authorize(policy, principal, match, question.http, message, query)
    except DeniedError as denial:
        decided = denial
    digest, rights = RightsLog().note(principal, 0.0)
    line = {
        "event": "request", "timestamp": TIMESTAMP, "key_id": KEY, "http": question.http, "route": match.route.id,
        "rpc": question.rpc, "name": question.params.get("name"),
        **form_decision(match, target.path, message, query, decided, digest),
    }  # fmt: skip
    return [render(None, "info", {"event": "rights", **(rights or {})}), render(None, "info", line)]


def replay(policy: Policy, *lines: bytes) -> Replay:
    log = DecisionLog()
    for line in lines:
        log.read(line)
    return log.replay(policy)


def draw(policy: Policy, seed: int, count: int) -> Iterator[tuple[frozenset[str], Question, list[bytes]]]:
    asking = Asking(policy, seed, nesting=0.3)
    for _ in range(count):
        scopes, question = asking.draw()
        lines = decide(policy, question, scopes)
        if lines:
            yield scopes, question, lines


def test_the_policy_that_decided_decides_the_same_again(policy: Policy) -> None:
    for deciding in (policy, EXTRA_POLICY):
        told = untold = 0
        for _, question, lines in draw(deciding, seed=1, count=1500):
            found = replay(deciding, *lines)
            assert not found.flips, (question, found.flips)
            assert not found.verdicts["other_rule"], question
            told += found.verdicts["same"]
            untold += found.untold.total()
        assert told > 9 * untold, "most can be told"


@pytest.mark.parametrize("seed", range(40))
def test_another_policy_decides_as_it_would_have_or_it_is_not_told(seed: int) -> None:
    rng = random.Random(seed)
    before, after = (parse_policy(write_policy(rng), "p.yaml") for _ in range(2))
    for scopes, question, lines in draw(before, seed=seed, count=60):
        found = replay(after, *lines)
        if found.untold:
            continue
        grants = after.effective_scopes(scopes, (), OWNER.tier)
        allowed, rule, _ = enforce(after, question, grants)
        was = json.loads(lines[1])
        if allowed == (was["decision"] == "allowed"):
            assert not found.flips, question
        else:
            (flip,) = found.flips
            assert (flip.verdict, flip.rule_after) == ("opens" if allowed else "closes", rule), question


TEMPLATE = """\
version: 1
default_tier: pro
scopes:
  a:run: { title: Run, selector: name }
  a:list: { title: List }
presets: {}
tiers: { pro: ["*"], enterprise: ["*"] }
routes:
  - id: mcp
    path: /mcp/v1
    methods: [POST]
    upstream: mcp
    protocol: mcp
    rules:
      - { tool: act, %s }
  - { id: rest, path: "/v1/a/{name}", methods: [GET], upstream: api, require: "a:run:{name}"%s }
...
"""


def write(rule: str, query: str = "") -> Policy:
    return parse_policy(TEMPLATE % (rule, query), "p.yaml")


BY_NAME = write('require: "a:run:{arguments.name}"')
LISTING = write("require: a:list")
GUARDED = write('require: "a:run:{arguments.name}", where: { arguments.force: { absent_or: false } }')


def ask_call(name: str = "nightly") -> Question:
    return Question("POST", "/mcp/v1", "tools/call", {"name": "act", "arguments": {"name": name}})


def test_what_opens_and_what_closes_is_told_with_both_rules() -> None:
    lines = decide(BY_NAME, ask_call(), frozenset({"a:run:nightly"}))
    (closes,) = replay(LISTING, *lines).flips
    assert (closes.verdict, closes.key_id, closes.subject) == ("closes", KEY, "tools/call act")
    assert closes.why == "tool act needs scope a:list"
    assert (closes.seen.count, closes.seen.first, closes.seen.last) == (1, TIMESTAMP, TIMESTAMP)
    (opens,) = replay(LISTING, *decide(BY_NAME, ask_call(), frozenset({"a:list"}))).flips
    assert (opens.verdict, opens.why) == ("opens", None)


def test_what_was_not_recorded_is_not_guessed() -> None:
    held = frozenset({"a:run", "a:list"})
    found = replay(GUARDED, *decide(BY_NAME, ask_call(), held))
    assert (found.untold, found.flips) == ({"arguments.force was not recorded": 1}, ())
    found = replay(BY_NAME, *decide(LISTING, ask_call(), held))
    assert found.untold == {"arguments.name was not recorded": 1}
    request = Question("GET", "/v1/a/nightly")
    queried = write("require: a:list", ', query: { tenant_id: { absent_or: "{owner.tenant}" } }')
    assert replay(queried, *decide(LISTING, request, held)).untold == {"query.tenant_id was not recorded": 1}
    assert replay(queried, *decide(queried, request, held)).verdicts == {"same": 1}


def test_decisions_that_do_not_tell_say_why() -> None:
    rights, line = decide(BY_NAME, ask_call(), frozenset({"a:run"}))
    members = json.loads(line)

    def change(**changes: object) -> bytes:
        return json.dumps({**members, **changes}).encode()

    assert replay(BY_NAME, line).untold == {NO_RIGHTS: 1}
    assert replay(BY_NAME, rights, change(path=None)).untold == {NO_PATH: 1}
    assert replay(BY_NAME, rights, change(fields=None)).untold == {NO_FIELDS: 1}
    assert replay(BY_NAME, rights, change(fields={"arguments.name": "x"})).untold == {BAD_FIELDS: 1}
    deep: dict[str, object] = {".".join(["a"] * depth): {} for depth in range(1, 2000)}
    assert replay(BY_NAME, rights, change(fields=deep)).untold == {BAD_FIELDS: 1}
    blotted = {**members["fields"], "arguments.name": "aegis_…"}
    assert replay(BY_NAME, rights, change(fields=blotted)).untold == {"arguments.name was not recorded": 1}


def test_rights_may_come_after_what_rests_on_them_and_equal_decisions_are_counted() -> None:
    rights, line = decide(BY_NAME, ask_call(), frozenset({"a:run"}))
    later = line.replace(b"10:00:00", b"11:00:00")
    (flip,) = replay(LISTING, later, line, later, rights).flips
    assert (flip.seen.count, flip.seen.first, flip.seen.last) == (3, TIMESTAMP, TIMESTAMP.replace("10:", "11:"))


def test_what_is_older_is_left_out_and_its_rights_are_not() -> None:
    rights, line = decide(BY_NAME, ask_call(), frozenset({"a:run"}))
    log = DecisionLog(since="2026-11-24T10:30:00")
    for one in (rights, line, line.replace(b"10:00:00", b"11:00:00")):
        log.read(one)
    assert (log.older, log.replay(BY_NAME).verdicts) == (1, {"same": 1})


LINE: dict[str, Any] = {
    "event": "request", "timestamp": TIMESTAMP, "key_id": KEY, "http": "POST", "route": "mcp", "rpc": "tools/call",
    "decision": "allowed", "fields": {}, "rights": "0", "path": "/mcp/v1",
}  # fmt: skip
CHANGES: list[dict[str, object]] = [
    {"rpc": None, "fields": {"query.page": 5}}, {"rpc": None, "fields": {"query.page": {}}}, {"fields": {"name": [1]}},
    {"decision": "perhaps"}, {"fields": []}, {"path": 1}, {"key_id": None}, {"timestamp": 5}, {"rights": None},
]  # fmt: skip
FOREIGN = [
    b"", b"\xff\n", b"not json", b"[]", b"null", b"{}", b'{"event": "listening"}', b"[" * 100_000,
    b'{"event": "rights", "rights": "0", "scopes": 5}',
    json.dumps({**LINE, "key_id": "\ud800"}).encode(),  # nothing could print it
    *(json.dumps({**LINE, **changes}).encode() for changes in CHANGES),
    *(json.dumps({name: LINE[name] for name in LINE if name != without}).encode() for without in ("fields", "http")),
]  # fmt: skip


@pytest.mark.parametrize("line", FOREIGN)
def test_a_line_of_somebody_else_is_counted_and_nothing_more(line: bytes) -> None:
    log = DecisionLog()
    log.read(line)
    assert (log.lines, log.foreign, log.decisions) == (1, 1, {})


def test_a_request_that_never_came_to_a_decision_is_none() -> None:
    log = DecisionLog()
    log.read(json.dumps({"event": "request", "outcome": "credential_invalid"}))
    assert (log.undecided, log.foreign) == (1, 0)
