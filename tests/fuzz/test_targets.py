"""Whatever target is admitted, the path that was judged is the path that the upstream receives."""

from __future__ import annotations

import dataclasses
from collections import Counter

from proxy.envelope import Target, parse_target
from proxy.errors import Reason, RequestError
from proxy.policy import Policy, RouteMatch, parse_policy
from tests.canary_upstream import CanaryUpstream
from tests.fuzz.door import Door
from tests.fuzz.scale import TARGETS, draw
from tests.fuzz.targets import write_target
from tests.raw_client import RawAnswer
from tests.staging import Stage

POLICY = """
version: 1
default_tier: all
scopes: { workflow:read: { title: Read workflows, selector: workflow name } }
presets: { execution: { title: Execution, scopes: ["workflow:read:mine"] } }
tiers: { all: ["*"] }
routes:
  - { id: mcp, path: /mcp/v1, methods: [POST, GET, DELETE], upstream: mcp, protocol: mcp,
      rules: [{ http: [GET, DELETE], allow: any-key }, { rpc: "*", allow: any-key }] }
  - { id: workflow, path: "/v1/workflows/{name}", methods: [GET], upstream: mcp, require: "workflow:read:{name}" }
  - { id: run, path: "/v1/workflows/{name}/runs/{run}", methods: [GET], upstream: mcp, require: "workflow:read:{name}" }
  - { id: public, path: /public, methods: [GET], upstream: mcp, allow: any-key }
  - { id: files, path: "/files/**", methods: [GET], upstream: mcp, allow: any-key }
...
"""
REFUSED = {400, 403, 404, 414, 505}


def judge(raw: bytes, policy: Policy) -> tuple[Target, RouteMatch] | None:
    """What the front door makes of it, if anything."""
    try:
        target = parse_target(raw.decode("utf-8", "surrogateescape"))
    except RequestError:
        return None
    match = policy.find_route(target.path)
    return (target, match) if match is not None else None


async def test_the_path_that_was_judged_is_the_path_the_upstream_receives(stage: Stage) -> None:
    policy = parse_policy(POLICY, "policy of targets")
    stage = dataclasses.replace(stage, policy=policy)
    token = (await stage.mint()).token
    rest = f" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    seen: Counter[str] = Counter()
    async with (
        CanaryUpstream() as canary,
        stage.proxy(canary.url, revocation={"lease_seconds": 10.0}) as proxy,
        Door(proxy.data_address) as door,
    ):
        for name, rng in draw(TARGETS):
            sent = write_target(rng)
            raw = sent.strip(b" ")  # llhttp takes more than one space before and after a target, as RFC 9112 3 lets it
            canary.requests.clear()
            canary.received.clear()
            told = await door.ask(b"GET " + sent + rest)
            seen[check(raw, judge(raw, policy), policy, told, canary, name)] += 1
    for route in policy.routes:
        assert seen[route.id], f"nothing passed by {route.id}: {seen}"
    assert seen[Reason.TARGET_NOT_CANONICAL] > TARGETS / 10, seen


def check(
    raw: bytes,
    judged: tuple[Target, RouteMatch] | None,
    policy: Policy,
    told: RawAnswer,
    canary: CanaryUpstream,
    name: str,
) -> str:
    """Raises AssertionError; the route it passed by, or the reason why not."""
    case = f"{name}: {raw!r} was answered {told.status} {told.reason}; upstream: {bytes(canary.received)!r}"
    if not canary.received:
        assert told.status in REFUSED, case
        assert told.reason is not None, case
        open_to_all = judged is not None and judged[1].route.id in ("files", "public", "mcp")
        assert not open_to_all or b"?" in raw, case  # a query has reasons of its own to be refused
        return told.reason
    assert judged is not None, case
    target, match = judged
    (received,) = canary.requests
    assert len(canary.received) == len(received.raw), case
    assert (told.status, told.reason) == (200, None), case
    assert received.target.encode() == target.text.encode() == raw, case
    path = received.target.partition("?")[0]
    assert path == target.path, case
    assert policy.find_route(path) == match, case
    assert match.path_params.get("name", "mine") == "mine", case
    return match.route.id
