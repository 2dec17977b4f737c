"""Whoever listens hears that lists look different: what was asked for and agreed to, once, and not too early."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from proxy.messages import Message, parse_message
from proxy.sse import form_event, get_values
from proxy.subscriptions import ACKNOWLEDGED, Subscription, find_subscription
from tests.staging import MODERN_META

NARROW, WIDE = frozenset({"agent:list"}), frozenset({"agent:list", "agent:read"})
ALL = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


def form_listen(notifications: object, rpc_id: object = "listen-1", method: str = "subscriptions/listen") -> Message:
    params = {"_meta": MODERN_META, "notifications": notifications}
    return parse_message(orjson.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}))


def form_ack(notifications: object) -> bytes:
    params = {"notifications": notifications}
    return form_event(orjson.dumps({"jsonrpc": "2.0", "method": ACKNOWLEDGED, "params": params}))


def open_subscription(notifications: object = ALL, agreed: object = ALL, rpc_id: object = "listen-1") -> Subscription:
    """One whose acknowledgement has passed."""
    subscription = Subscription(form_listen(notifications, rpc_id), NARROW)
    subscription.read_event(form_ack(agreed))
    subscription.note_sent()
    return subscription


def read_methods(events: list[bytes]) -> list[str]:
    return [json.loads(get_values(event, b"data")[0])["method"] for event in events]


def test_other_rights_are_told_once_for_each_list_that_was_asked_for() -> None:
    subscription = open_subscription()
    assert subscription.form_notices(NARROW) == []
    assert read_methods(subscription.form_notices(WIDE)) == [
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    ]
    assert subscription.form_notices(WIDE) == []
    assert len(subscription.form_notices(NARROW)) == 3


@pytest.mark.parametrize("rpc_id", ["listen-1", 7])
def test_a_notice_is_one_event_tagged_with_the_request(rpc_id: object) -> None:
    (event,) = open_subscription({"toolsListChanged": True}, rpc_id=rpc_id).form_notices(WIDE)
    assert json.loads(event.removeprefix(b"event: message\ndata: ").removesuffix(b"\n\n")) == {
        "jsonrpc": "2.0",
        "method": "notifications/tools/list_changed",
        "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": rpc_id}},
    }


@pytest.mark.parametrize(
    ("asked", "agreed", "told"),
    [
        ({}, ALL, []),
        (ALL, {}, []),
        (ALL, None, []),
        ({"toolsListChanged": True}, ALL, ["notifications/tools/list_changed"]),
        (ALL, {"promptsListChanged": True}, ["notifications/prompts/list_changed"]),
        ({"toolsListChanged": 1, "promptsListChanged": "true"}, ALL, []),
        ({"toolsListChanged": False}, ALL, []),
        ([], ALL, []),
    ],
)
def test_only_what_was_asked_for_and_agreed_to_is_told(asked: object, agreed: object, told: list[str]) -> None:
    assert read_methods(open_subscription(asked, agreed).form_notices(WIDE)) == told


def test_what_changed_before_the_acknowledgement_passed_is_told_after_it() -> None:
    subscription = Subscription(form_listen(ALL), NARROW)
    assert subscription.form_notices(WIDE) == []
    subscription.read_event(form_ack(ALL))
    assert subscription.form_notices(WIDE) == []
    subscription.note_sent()
    assert len(subscription.form_notices(WIDE)) == 3


@pytest.mark.parametrize(
    "event",
    [
        b"data: acknowledged\n\n",
        b'data: ["acknowledged"]\n\n',
        form_event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"acknowledged"}}'),
        form_event(b'{"jsonrpc":"2.0","method":"%b","method":"x"}' % ACKNOWLEDGED.encode()),
        b": acknowledged\n",
    ],
)
def test_nothing_else_is_an_acknowledgement_and_every_event_passes(event: bytes) -> None:
    subscription = Subscription(form_listen(ALL), NARROW)
    assert subscription.read_event(event) is event
    subscription.note_sent()
    assert subscription.form_notices(WIDE) == []


def test_the_acknowledgement_passes_byte_for_byte() -> None:
    event = form_ack(ALL)
    assert Subscription(form_listen(ALL), NARROW).read_event(event) is event


@pytest.mark.parametrize(
    ("message", "is_one"),
    [(form_listen({}), True), (form_listen({}, method="tools/list"), False), (None, False)],
)
def test_only_a_request_to_listen_opens_one(message: Any, is_one: bool) -> None:
    assert (find_subscription(message, NARROW) is not None) is is_one
