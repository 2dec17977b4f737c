"""Whatever body is admitted says the same to every parser, and that is what was judged."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import Reason, RequestError
from proxy.messages import Message, parse_message
from tests.fuzz.bodies import write_body
from tests.fuzz.node_reader import BATCH_BYTES, NODE, NodeReader
from tests.fuzz.readings import agrees, check_readings
from tests.fuzz.scale import BODIES, SHRINKABLE_BODIES, draw

OUTCOMES = {"request", "notification", "response", Reason.MESSAGE_UNREADABLE, Reason.MESSAGE_INVALID}


class Jury:
    """The parsers of `readings` at once, and Node's in batches, where there is one."""

    def __init__(self, node: NodeReader | None) -> None:
        self._node = node
        self._waiting: list[tuple[bytes, Any, str]] = []
        self._waiting_bytes = 0

    def hear(self, body: bytes, message: Message, name: str) -> None:
        try:
            reference = check_readings(body, message)
        except AssertionError as error:
            raise AssertionError(f"{name}: {body!r} is sent as {message.body!r}: {error}") from error
        if len(message.body) + self._waiting_bytes > BATCH_BYTES:
            self.ask_node()
        self._waiting.append((message.body, reference, name))
        self._waiting_bytes += len(message.body) + 1

    def ask_node(self) -> None:
        if self._node is not None:
            read = self._node.read(text for text, _, _ in self._waiting)
            for value, (text, reference, name) in zip(read, self._waiting, strict=True):
                assert agrees(value, reference), f"{name}: Node reads {text!r} as {value!r}"
        self._waiting, self._waiting_bytes = [], 0


@pytest.fixture(scope="module")
def jury() -> Iterator[Jury]:
    with contextlib.ExitStack() as stack:
        yield Jury(stack.enter_context(NodeReader(NODE)) if NODE else None)


def parse(body: bytes) -> Message | Reason:
    """Whatever is neither a message nor a refusal is a fault, and raised."""
    try:
        message = parse_message(body)
    except RequestError as refusal:
        return refusal.reason
    assert parse_message(message.body).body == message.body
    return message


def test_whatever_is_admitted_reads_the_same_in_every_parser(jury: Jury) -> None:
    seen: Counter[str] = Counter()
    for name, rng in draw(BODIES):
        body = write_body(rng)
        outcome = parse(body)
        if isinstance(outcome, Message):
            jury.hear(body, outcome, name)
        seen[outcome.kind if isinstance(outcome, Message) else outcome] += 1
    jury.ask_node()
    assert min(seen[outcome] for outcome in OUTCOMES) > BODIES / 50, f"hardly any of some kind among them: {seen}"


@settings(
    max_examples=SHRINKABLE_BODIES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.randoms(use_true_random=False))
def test_and_a_body_for_which_that_is_false_would_be_found_in_its_shortest_form(jury: Jury, rng: Random) -> None:
    body = write_body(rng)
    outcome = parse(body)
    if isinstance(outcome, Message):
        jury.hear(body, outcome, "found by Hypothesis")
        jury.ask_node()
