"""The same bodies through a real proxy: what is refused leaves no byte upstream, what is admitted arrives as judged."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
from collections import Counter
from random import Random

from proxy.errors import Reason, RequestError
from proxy.messages import Message, parse_message
from proxy.policy import parse_policy
from tests.canary_upstream import CanaryUpstream, Received, answer_politely, form_answer
from tests.fuzz.bodies import write_body
from tests.fuzz.door import Door
from tests.fuzz.scale import SENT_BODIES, draw
from tests.raw_client import RawAnswer, ask_raw, form_chunks, form_request
from tests.staging import INITIALIZE, Stage

# Rules that read what the bodies are bent in, and for the rest let pass as much as there is.
POLICY = """
version: 1
default_tier: all
scopes:
  text:read: { title: Read texts, selector: name }
presets: { execution: { title: Execution, scopes: ["*"] } }
tiers: { all: ["*"] }
routes:
  - id: mcp
    path: /mcp/v1
    methods: [POST, GET, DELETE]
    upstream: mcp
    protocol: mcp
    every_tool: { arguments.tenant_id: { absent_or: "{owner.tenant}" } }
    rules:
      - { rpc: "*", allow: any-key }
      - { rpc: tasks/get, require: "text:read:{params.taskId}" }
      - { tool: echo, require: "text:read:{arguments.name}", where: { arguments.count: { absent_or: 3 } } }
      - { tool: "*", allow: any-key }
      - { prompt: greeting, require: "text:read:{arguments.who}" }
      - { prompt: "*", allow: any-key }
      - { uri: "aegis://texts/{text}", require: "text:read:{text}" }
...
"""


def parse(body: bytes) -> Message | RequestError:
    try:
        return parse_message(body)
    except RequestError as refusal:
        return refusal


def mirror(message: Message) -> dict[str, str]:
    """The headers that go with a message of revision 2026-07-28."""
    if not message.modern:
        return {}
    version, method = (message.protocol_version or "").encode(), message.method or ""
    headers = {"mcp_protocol_version": version.decode("latin-1"), "mcp_method": method}
    name = message.params.get("uri" if method.startswith("resources/") else "name")
    if isinstance(name, str):
        headers["mcp_name"] = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    return headers


def form(body: bytes, token: str, session: str, outcome: Message | RequestError, rng: Random) -> bytes:
    headers = mirror(outcome) if isinstance(outcome, Message) else {}
    if rng.randrange(3):
        return form_request(token=token, body=body, mcp_session_id=session, **headers)
    edges = sorted({0, len(body), *(rng.randrange(len(body) + 1) for _ in range(3))})
    chunks = form_chunks(*(body[start:end] for start, end in itertools.pairwise(edges)))
    head = form_request(
        token=token,
        body=chunks,
        without="Content-Length",
        mcp_session_id=session,
        transfer_encoding="chunked",
        **headers,
    )
    return head


async def test_a_body_arrives_as_it_was_judged_or_not_a_byte_of_it(stage: Stage) -> None:
    stage = dataclasses.replace(stage, policy=parse_policy(POLICY, "policy of bodies"))
    token = (await stage.mint()).token
    sessions = itertools.count()
    seen: Counter[str] = Counter()

    def answer(received: Received) -> bytes:
        if b'"method":"initialize"' not in received.body:
            return answer_politely(received)
        body = json.dumps({"jsonrpc": "2.0", "id": 0, "result": {}}).encode()
        return form_answer(body, f"Mcp-Session-Id: session-{next(sessions)}")

    async with (
        CanaryUpstream(answer) as canary,
        stage.proxy(canary.url, revocation={"lease_seconds": 10.0}) as proxy,
        Door(proxy.data_address) as door,
    ):
        begun = await ask_raw(proxy.data_address, form_request(token=token, body=INITIALIZE))
        session = begun.headers["Mcp-Session-Id"]
        for name, rng in draw(SENT_BODIES):
            body = write_body(rng)
            outcome = parse(body)
            canary.requests.clear()
            canary.received.clear()
            told = await door.ask(form(body, token, session, outcome, rng))
            reason = told.reason if told.body else None  # 202 has no body
            check(body, outcome, told, reason, canary, name)
            seen[reason or "passed"] += 1
    assert seen["passed"] > SENT_BODIES / 5, seen
    for reason in (Reason.MESSAGE_UNREADABLE, Reason.MESSAGE_INVALID, Reason.MESSAGE_DENIED):
        assert seen[reason], seen


def check(
    body: bytes, outcome: Message | RequestError, told: RawAnswer, reason: str | None, canary: CanaryUpstream, name: str
) -> None:
    case = f"{name}: {body!r} was answered {told.status} {told.body!r}"
    assert told.status < 500 or told.status in (502, 503, 504), case
    assert reason != Reason.INTERNAL, case
    assert b"could not judge" not in told.body, case
    if isinstance(outcome, RequestError):
        assert reason == outcome.reason, case
        assert told.status < 500, case
    if reason is None:
        assert isinstance(outcome, Message), case
        assert [received.body for received in canary.requests] == [outcome.body], case
        assert len(canary.received) == len(canary.requests[0].raw), case
    else:
        assert not canary.received, case
