"""A journal by what its events belong to: requests, answers, lines, and the states a key may have been in.  [pure]

In go events (`journal`), the bound in force and the policy; out comes a `Story` that `checker` asks. It knows which
states may have decided a request, never which one did: between a statement that was sent and its commit, and for the
bound after the next commit, both are possible. Nothing in here judges.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from proxy.identity import Owner, OwnerId
from proxy.policy import Allowed, Denied, Policy
from tests.faults.journal import (
    Answered,
    Changed,
    ChangeFailed,
    Changing,
    Chunk,
    Decision,
    Ended,
    Event,
    Failed,
    KeyState,
    Received,
    Sent,
)

MCP_PATH = "/mcp/v1"
# Whose the keys are makes no difference to requests that name no tenant and no user.
OWNER = Owner(OwnerId(""), "tenant", "issuer", "subject", "pro")


@dataclass(slots=True)
class Phase:
    """A state a key may have been in: from the first instant it may be in force to the last it may be believed."""

    state: KeyState
    since: float
    acknowledged: float = math.inf
    until: float = math.inf


@dataclass(slots=True)
class Story:
    """The journal, by what its events belong to."""

    events: list[Event]
    policy: Policy
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    answered: dict[str, Answered] = field(default_factory=dict)
    over: dict[str, float] = field(default_factory=dict)  # when the client knew that it was
    decisions: dict[str, list[Decision]] = field(default_factory=lambda: defaultdict(list))
    received: Counter[str] = field(default_factory=Counter)

    def find_states(self, key: str, begin: float, end: float) -> list[KeyState]:
        """Every state that may have decided something that happened between two instants."""
        return [phase.state for phase in self.phases.get(key, ()) if phase.since <= end and begin <= phase.until]

    def may(self, sent: Sent, begin: float, end: float) -> bool:
        """Whether the policy lets any of these states send it."""
        states = self.find_states(sent.key, begin, end)
        return any(isinstance(decide(self.policy, state, sent), Allowed) for state in states)

    def find_admissions(self) -> Iterator[tuple[Sent, Answered]]:
        for answer in self.answered.values():
            if answer.admitted:
                yield self.sent[answer.id], answer

    def find_chunks(self) -> Iterator[tuple[Sent, Chunk]]:
        for event in self.events:
            if isinstance(event, Chunk):
                yield self.sent[event.id], event


def decide(policy: Policy, state: KeyState, sent: Sent) -> Allowed | Denied:
    """What the policy says of a request, had the key this state: the same rooms that the proxy asks."""
    match = policy.find_route(MCP_PATH)
    if match is None or state.status != "active":
        return Denied(None, "the key is not active")
    grants = policy.effective_scopes(state.scopes, (), state.tier)
    if sent.tool is None:
        return policy.decide_http(match, "GET", {}, grants, OWNER)
    params = {"name": sent.tool, "arguments": dict(sent.arguments)}
    return policy.decide_message(match, "tools/call", params, grants, OWNER)


def form_phases(changes: Iterable[Event], bound: float) -> list[Phase]:
    """The states of one key. An acknowledged change ends what was acknowledged before it was sent; one whose outcome
    nobody knows stays possible, until the key is revoked: that is never left."""
    phases: list[Phase] = []
    for event in changes:
        if isinstance(event, Changing):
            phases.append(Phase(event.state, event.at))
        elif isinstance(event, Changed):
            phase = next(one for one in reversed(phases) if one.state == event.state and one.acknowledged == math.inf)
            phase.acknowledged = event.at
            for other in phases:
                overtaken = other.acknowledged <= phase.since or event.state.status == "revoked"
                if other is not phase and overtaken:
                    other.until = min(other.until, event.at + bound)
    return phases


def tell(events: Iterable[Event], bound: float, policy: Policy) -> Story:
    """Sort the events by what they belong to."""
    story = Story(sorted(events, key=lambda event: event.at), policy)
    changes: dict[str, list[Event]] = defaultdict(list)
    for event in story.events:
        match event:
            case Sent():
                story.sent[event.id] = event
            case Answered():
                story.answered[event.id] = event
                story.over.setdefault(event.id, event.at)
            case Failed() | Ended():
                story.over[event.id] = event.at
            case Received():
                story.received[event.id] += 1
            case Decision():
                story.decisions[event.request_id].append(event)
            case Changing() | Changed() | ChangeFailed():
                changes[event.key].append(event)
            case _:
                pass
    story.phases = {key: form_phases(of_key, bound) for key, of_key in changes.items()}
    return story
