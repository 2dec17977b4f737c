"""What was handed to one key opens for that key and that request, and for nothing else."""

from __future__ import annotations

import base64
import string
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from proxy.errors import Reason, Refusal, RequestError
from proxy.handles import (
    MAX_EVENT_ID_BYTES,
    STATEFUL_METHODS,
    Binder,
    Handles,
    find_made_task,
    find_task_ids,
    form_context,
    form_event_context,
    form_travel_context,
)
from proxy.identity import KeyId
from proxy.messages import Message, parse_message
from proxy.sealing import Seal

SECRET = b"the one secret that the instances share"


def make_binder(secret: bytes = SECRET) -> Binder:
    return Binder(Seal(secret, "request-state"), Seal(secret, "event-id"), Seal(secret, "message-target"))


BINDER = make_binder()
ADA, BOB = KeyId("key000000001"), KeyId("key000000002")
NOW, LATER = 1_800_000_000.0, 1_800_003_600.0
STATE = 'the upstream\'s: "own" {state} \\ of a request é'
EVENT = form_event_context("mcp", ADA, "a-session")

# Whatever JSON can say, in texts that UTF-8 can carry.
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, width=32) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
NAMES = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


def form_message(method: str = "tools/call", /, **params: Any) -> Message:
    """A request as it comes in; its name is `a` unless given."""
    named = {NAMES[method]: "a"} if method in NAMES else {}
    return parse_message(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": named | params}))


def seal(message: Message, state: str = STATE, upstream: str = "mcp", key_id: KeyId = ADA) -> str:
    return BINDER.seal_state(state, form_context(message, upstream, key_id), LATER)


def refuse_state(
    retry: Message, *, upstream: str = "mcp", key_id: KeyId = ADA, now: float = NOW, binder: Binder = BINDER
) -> None:
    with pytest.raises(Refusal) as caught:
        binder.open_state(retry, upstream, key_id, now)
    assert caught.value.reason is Reason.HANDLE_UNKNOWN
    assert caught.value.detail == "This requestState is not valid for this request, or no longer."


def make_handles(message: Message | None = None, *, key_id: KeyId = ADA) -> Handles:
    context = form_context(message, "mcp", key_id) if message is not None else None
    return Handles(
        BINDER, state_context=context, event_context=EVENT, has_event_ids=True, expected=True, wall=lambda: NOW
    )


# States


@given(st.sampled_from(sorted(STATEFUL_METHODS)), texts, values, values, st.dictionaries(texts, values, max_size=3))
def test_a_state_comes_back_as_it_was_made_whatever_the_round_adds(
    method: str, state: str, argument: object, answer: object, meta: dict[str, Any]
) -> None:
    first = form_message(method, arguments={"x": argument})
    sealed = seal(first, state)
    assume(not any(name.lower().startswith("io.modelcontextprotocol") for name in meta))
    retry = form_message(method, arguments={"x": argument}, inputResponses=answer, requestState=sealed, _meta=meta)
    opened = orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))
    expected = orjson.loads(retry.body)
    expected["params"]["requestState"] = state
    assert opened == expected


@given(values, values)
def test_a_state_opens_for_no_other_arguments(first: object, other: object) -> None:
    message, retry = form_message(arguments={"x": first}), form_message(arguments={"x": other})
    assume(orjson.dumps(first, option=orjson.OPT_SORT_KEYS) != orjson.dumps(other, option=orjson.OPT_SORT_KEYS))
    refuse_state(form_message(arguments={"x": other}, requestState=seal(message)))
    assert form_context(message, "mcp", ADA) != form_context(retry, "mcp", ADA)


def test_a_state_of_one_request_is_refused_for_every_other() -> None:
    message = form_message(arguments={"x": 1})
    sealed = seal(message)
    retry = form_message(arguments={"x": 1}, requestState=sealed)
    assert orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))["params"]["requestState"] == STATE
    refuse_state(retry, key_id=BOB)
    refuse_state(retry, upstream="api")
    refuse_state(retry, binder=make_binder(b"another secret of another fleet"))
    refuse_state(
        retry, binder=Binder(*(Seal(SECRET, name) for name in ("event-id", "request-state", "message-target")))
    )
    refuse_state(replace(retry, method="prompts/get"))
    refuse_state(form_message(arguments={"x": 1}, name="b", requestState=sealed))
    refuse_state(form_message(arguments={"x": 1.0}, requestState=sealed))
    refuse_state(form_message(arguments={"x": 1, "y": None}, requestState=sealed))
    refuse_state(form_message(arguments={"x": 1}, task={"ttl": 1}, requestState=sealed))
    refuse_state(form_message(requestState=sealed))


def test_the_order_in_which_a_retry_names_its_members_means_nothing() -> None:
    sealed = seal(form_message(arguments={"x": {"a": 1, "b": 2}, "y": 3}))
    retry = form_message(requestState=sealed, arguments={"y": 3, "x": {"b": 2, "a": 1}})
    assert orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))["params"]["requestState"] == STATE


def test_numbers_that_other_readers_round_are_told_apart_and_kept() -> None:
    form = '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"a","arguments":{{"x":{}}}{}}}}}'
    number, other = "12345678901234567890", "12345678901234567891"
    sealed = seal(parse_message(form.format(number, "").encode()))
    retry = parse_message(form.format(number, f',"requestState":"{sealed}"').encode())
    assert number.encode() in BINDER.open_state(retry, "mcp", ADA, NOW)
    refuse_state(parse_message(form.format(other, f',"requestState":"{sealed}"').encode()))


@pytest.mark.parametrize(("now", "good"), [(NOW, True), (LATER - 1, True), (LATER, False), (LATER + 1e9, False)])
def test_a_state_is_good_until_it_expires(now: float, good: bool) -> None:
    retry = form_message(requestState=seal(form_message()))
    if good:
        BINDER.open_state(retry, "mcp", ADA, now)
    else:
        refuse_state(retry, now=now)


def test_a_state_changed_at_any_byte_is_refused() -> None:
    sealed = seal(form_message())
    text = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    for position in range(len(text)):
        for bit in (1, 128):
            changed = bytearray(text)
            changed[position] ^= bit
            refuse_state(form_message(requestState=base64.urlsafe_b64encode(changed).decode().rstrip("=")))
    for length in range(len(text)):
        refuse_state(form_message(requestState=base64.urlsafe_b64encode(text[:length]).decode().rstrip("=")))


@given(st.text(string.ascii_letters + string.digits + "-_=.+/ é") | values.filter(lambda value: value is not None))
@example("")
@example(True)
@example(["a"])
@example({"requestState": "a"})
def test_what_nobody_sealed_is_refused(forged: object) -> None:
    refuse_state(form_message(requestState=forged))


@given(st.integers(0), st.sampled_from(string.printable))
def test_no_change_of_a_letter_makes_another_state(position: int, letter: str) -> None:
    """Base64 may spell the same bytes in two ways; other bytes open nothing."""
    sealed = seal(form_message())
    position %= len(sealed)
    retry = form_message(requestState=sealed[:position] + letter + sealed[position + 1 :])
    try:
        opened = orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))
    except Refusal:
        return
    assert opened["params"]["requestState"] == STATE


def test_a_message_without_a_state_goes_on_byte_for_byte() -> None:
    for message in (
        form_message(arguments={"requestState": "nested", "x": [{"requestState": 5}]}),
        form_message(requestState=None),
        form_message("resources/read", _meta={"requestState": "nested"}),
        form_message("tasks/update", taskId="t", requestState="not of this method"),
        form_message("ping", requestState="not of this method"),
    ):
        assert BINDER.open_state(message, "mcp", ADA, NOW) is message.body


def test_a_state_is_never_shown_in_the_clear() -> None:
    sealed = seal(form_message(), "secret-state")
    assert "secret-state" not in sealed
    assert b"secret-state" not in base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))


# Event ids


printable_ids = st.text(string.digits + string.ascii_letters + string.punctuation, min_size=1, max_size=200)


@given(printable_ids)
def test_a_signed_event_id_is_good_for_its_session_and_key_alone(event_id: str) -> None:
    signed = BINDER.sign_event_id(event_id.encode(), EVENT)
    assert signed is not None
    assert signed.startswith(event_id.encode() + b".")
    assert BINDER.check_event_id(signed.decode(), EVENT) == event_id
    for foreign in (
        form_event_context("mcp", BOB, "a-session"),
        form_event_context("mcp", ADA, "another-session"),
        form_event_context("mcp", ADA, None),
        form_event_context("api", ADA, "a-session"),
    ):
        refuse_event(signed.decode(), foreign)
    refuse_event(signed.decode(), EVENT, make_binder(b"another secret of another fleet"))


def refuse_event(signed: str, context: bytes, binder: Binder = BINDER) -> None:
    """Like a session that never was."""
    with pytest.raises(Refusal) as caught:
        binder.check_event_id(signed, context)
    assert caught.value.reason is Reason.SESSION_UNKNOWN


@given(printable_ids, printable_ids)
def test_the_signature_of_one_event_is_none_of_another(event_id: str, other: str) -> None:
    assume(event_id != other)
    signed = BINDER.sign_event_id(event_id.encode(), EVENT)
    assert signed is not None
    signature = signed.decode().rpartition(".")[2]
    refuse_event(f"{other}.{signature}", EVENT)
    refuse_event(f"{signed.decode()}.{signature}", EVENT)


@given(st.text() | printable_ids)
@example("")
@example(".")
@example("5")
@example("5.")
@example("5.\udce9")
@example("\udce9.x")
def test_an_event_id_that_nobody_signed_is_refused(unsigned: str) -> None:
    refuse_event(unsigned, EVENT)


def test_a_signed_event_id_changed_at_any_letter_is_refused() -> None:
    signed = BINDER.sign_event_id(b"stream_0_7", EVENT)
    assert signed is not None
    for position in range(len(signed)):
        for letter in "A5._-":
            changed = signed[:position] + letter.encode() + signed[position + 1 :]
            if changed != signed:
                refuse_event(changed.decode(), EVENT)


def test_an_event_id_may_be_signed_over_and_over() -> None:
    """A client may meet an instance that signed nothing yet: the signature is in the id alone."""
    assert BINDER.sign_event_id(b"7", EVENT) == make_binder().sign_event_id(b"7", EVENT)


@pytest.mark.parametrize("odd", [b"\xff", "é".encode(), b"a\0", b"a\tb", b"\x7f", b"x" * (MAX_EVENT_ID_BYTES + 1)])
def test_an_event_id_that_no_header_carries_back_is_withheld(odd: bytes) -> None:
    assert BINDER.sign_event_id(odd, EVENT) is None


def test_the_longest_event_id_is_signed() -> None:
    longest = b"x" * MAX_EVENT_ID_BYTES
    signed = BINDER.sign_event_id(longest, EVENT)
    assert signed is not None
    assert BINDER.check_event_id(signed.decode(), EVENT) == longest.decode()


# Where the messages of a session of HTTP+SSE go

TARGET = "/elsewhere/messages/?session_id=a1b2c3"


def refuse_target(sealed: str, *, upstream: str = "mcp", key_id: KeyId = ADA, binder: Binder | None = None) -> None:
    with pytest.raises(Refusal) as caught:
        (binder or BINDER).unseal_target(sealed, upstream, key_id)
    assert caught.value.reason is Reason.SESSION_UNKNOWN
    assert caught.value.detail == "There is no such session: it has ended, or never was."


def test_a_target_opens_for_its_key_and_upstream_alone() -> None:
    sealed = BINDER.seal_target(TARGET, "mcp", ADA)
    assert BINDER.unseal_target(sealed, "mcp", ADA) == make_binder().unseal_target(sealed, "mcp", ADA) == TARGET
    refuse_target(sealed, key_id=BOB)
    refuse_target(sealed, upstream="api")
    refuse_target(sealed, binder=make_binder(b"another secret of another fleet"))


def test_a_target_is_told_as_one_member_of_a_query_and_always_the_same() -> None:
    sealed = BINDER.seal_target(TARGET, "mcp", ADA)
    assert set(sealed) <= set(string.ascii_letters + string.digits + "-_")
    assert sealed == BINDER.seal_target(TARGET, "mcp", ADA)
    assert sealed != BINDER.seal_target(TARGET, "mcp", BOB)
    assert b"a1b2c3" not in base64.urlsafe_b64decode(sealed + "==")


def test_a_target_changed_at_any_letter_or_spelled_otherwise_is_refused() -> None:
    sealed = BINDER.seal_target(TARGET, "mcp", ADA)
    for place, letter in enumerate(sealed):
        for other in ("A", "B", "_", "="):
            if other != letter:
                refuse_target(sealed[:place] + other + sealed[place + 1 :])
    for spelling in (sealed + "=", sealed + "==", sealed[:-1], sealed + "A", f" {sealed}", "", TARGET):
        refuse_target(spelling)


def test_a_state_and_a_target_never_pass_for_one_another() -> None:
    state = BINDER.seal_state(TARGET, form_travel_context("mcp", ADA), LATER)
    refuse_target(state)
    retry = form_message(requestState=BINDER.seal_target(TARGET, "mcp", ADA))
    with pytest.raises(Refusal):
        BINDER.open_state(retry, "mcp", ADA, NOW, apart=True)


def test_a_state_that_came_by_another_way_than_its_request_is_its_keys_by_that_transport_alone() -> None:
    sealed = BINDER.seal_state(STATE, form_travel_context("mcp", ADA), LATER)
    retry = form_message(arguments={"x": 1}, requestState=sealed)
    assert orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW, apart=True))["params"]["requestState"] == STATE
    refuse_state(retry)
    for upstream, key_id in (("mcp", BOB), ("api", ADA)):
        with pytest.raises(Refusal):
            BINDER.open_state(retry, upstream, key_id, NOW, apart=True)
    with pytest.raises(Refusal):
        BINDER.open_state(form_message(requestState=seal(form_message())), "mcp", ADA, NOW, apart=True)


# Tasks


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"])
def test_every_method_on_a_task_names_it(method: str) -> None:
    assert find_task_ids(form_message(method, taskId="t-1")) == ["t-1"]


@pytest.mark.parametrize(
    "message",
    [
        form_message("tasks/list"),
        form_message("tasks/list", cursor="c"),
        form_message("ping", taskId="t-1"),
        form_message(arguments={"taskId": "t-1"}),
        form_message("subscriptions/listen"),
        form_message("subscriptions/listen", notifications={"toolsListChanged": True}),
        form_message("subscriptions/listen", notifications={"taskIds": None}),
        form_message("subscriptions/listen", notifications={"taskIds": []}),
        form_message("subscriptions/listen", notifications="taskIds"),
        form_message("subscriptions/listen", taskIds=["t-1"]),
        parse_message(b'{"jsonrpc":"2.0","id":1,"result":{"taskId":"t-1"}}'),
    ],
    ids=lambda message: f"{message.method} {dict(message.params)}",
)
def test_other_messages_name_none(message: Message) -> None:
    assert find_task_ids(message) == []


def test_a_subscription_names_all_it_listens_to() -> None:
    message = form_message("subscriptions/listen", notifications={"taskIds": ["t-1", "t-2", "t-1"]})
    assert find_task_ids(message) == ["t-1", "t-2", "t-1"]


@pytest.mark.parametrize("odd", ["t-1", {"t-1": 1}, [1], ["t-1", None], [["t-1"]], True, 0, ""])
def test_what_a_subscription_listens_to_is_a_list_of_texts(odd: object) -> None:
    with pytest.raises(RequestError, match="`taskIds`"):
        find_task_ids(form_message("subscriptions/listen", notifications={"taskIds": odd}))


@pytest.mark.parametrize("method", ["tasks/list", "tasks/of-tomorrow"])
@pytest.mark.parametrize("odd", [5, None, ["t-1"], {"t-1": 1}, True])
def test_what_names_a_task_is_a_text(method: str, odd: object) -> None:
    with pytest.raises(RequestError, match="`taskId`"):
        find_task_ids(form_message(method, taskId=odd))


@pytest.mark.parametrize("imitation", ["task_ids", "TaskIds", "taskids", "taſkIds"])
def test_a_subscription_names_tasks_in_one_spelling(imitation: str) -> None:
    """Forgiving readers fold the others into it: nothing would have asked whose they are."""
    with pytest.raises(RequestError, match="`taskIds`"):
        find_task_ids(form_message("subscriptions/listen", notifications={imitation: ["t-1"]}))


@pytest.mark.parametrize(
    ("result", "made"),
    [
        ({"task": {"taskId": "t-1", "status": "working"}}, ["t-1"]),
        ({"resultType": "task", "taskId": "t-1", "status": "working"}, ["t-1"]),
        ({"resultType": "complete", "task": {"taskId": "t-1"}}, ["t-1"]),
        ({"resultType": "task", "taskId": 5}, []),
        ({"resultType": "task", "task": {"taskId": "t-1"}}, []),
        ({"task": {"taskId": 5}}, []),
        ({"task": {}}, []),
        ({"task": "t-1"}, []),
        ({"taskId": "t-1"}, []),
        ({"structuredContent": {"task": {"taskId": "t-1"}}}, []),
        ({}, []),
    ],
)
def test_a_task_is_found_in_the_shape_of_either_revision(result: dict[str, Any], made: list[str]) -> None:
    assert find_made_task(result) == made
    handles = make_handles(form_message())
    answer = form_answer(result)
    assert handles.rewrite_answer(answer) == answer
    assert handles.new_tasks == made


# Answers


def form_answer(result: object) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result})


ASKING = {
    "resultType": "input_required",
    "inputRequests": {"sure": {"method": "elicitation/create", "params": {"message": "Sure?"}}},
    "requestState": STATE,
}


@pytest.mark.parametrize("method", sorted(STATEFUL_METHODS))
def test_a_state_leaves_sealed_and_everything_else_as_it_came(method: str) -> None:
    message = form_message(method)
    sent = orjson.loads(make_handles(message).rewrite_answer(form_answer(ASKING)))
    sealed = sent["result"].pop("requestState")
    assert sent == {"jsonrpc": "2.0", "id": 1, "result": {k: v for k, v in ASKING.items() if k != "requestState"}}
    retry = form_message(method, requestState=sealed)
    assert orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))["params"]["requestState"] == STATE


@given(values)
def test_an_answer_that_holds_no_handle_stays_the_very_same(result: object) -> None:
    assume(not isinstance(result, dict) or "requestState" not in result)
    handles = make_handles(form_message())
    for answer in (
        form_answer(result),
        form_answer({"content": [], "structuredContent": {"requestState": result, "taskId": result}}),
        form_answer({"_meta": {"requestState": result}}),
    ):
        assert handles.rewrite_answer(answer) is answer
    assert handles.new_tasks == [] or (isinstance(result, dict) and "task" in result)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc": "2.0",  "id": 1, "result": {"content": [{"type": "text", "text": "requestState taskId"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"arguments":{"requestState":"nested"},"x":[{"requestState":"n"}]}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"structuredContent":{"requestState":"nested","taskId":"t"}}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"requestState":null}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"requestState":5}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"","data":{"requestState":"nested"}}}',
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{"requestState":"nested"}}',
        b'{"jsonrpc":"2.0","id":1,"requestState":"beside","result":{}}',
        b'[{"jsonrpc":"2.0","id":1,"result":{"requestState":"in a batch"}}]',
        b'{"jsonrpc":"2.0","id":1,"result":{"requestState":"a","requestState":"b"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"requestState":"a"}',
        b'"requestState"',
        b"",
    ],
)
def test_what_is_no_result_with_a_state_passes_byte_for_byte(answer: bytes) -> None:
    assert make_handles(form_message()).rewrite_answer(answer) is answer


def test_a_state_whose_name_hides_in_escapes_is_sealed_all_the_same() -> None:
    plain = b'{"jsonrpc":"2.0","id":1,"result":{"requestState":"a-state"}}'
    for position, letter in enumerate("requestState"):
        for escape in (rf"\u{ord(letter):04x}", rf"\u{ord(letter):04X}"):
            name = "requestState"[:position] + escape + "requestState"[position + 1 :]
            answer = plain.replace(b"requestState", name.encode())
            sent = make_handles(form_message()).rewrite_answer(answer)
            assert b"a-state" not in sent
            assert orjson.loads(sent)["result"].keys() == {"requestState"}


def test_a_task_whose_name_hides_in_escapes_is_found_all_the_same() -> None:
    handles = make_handles(form_message())
    answer = rb'{"jsonrpc":"2.0","id":1,"result":{"t\u0061sk":{"\u0074askId":"t-1"}}}'
    assert handles.rewrite_answer(answer) is answer
    assert handles.new_tasks == ["t-1"]


def test_where_no_state_may_come_none_is_sealed_and_tasks_are_still_found() -> None:
    handles = make_handles(None)
    answer = form_answer({"requestState": STATE, "task": {"taskId": "t-1"}})
    assert handles.rewrite_answer(answer) is answer
    assert handles.new_tasks == ["t-1"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_of_an_event_only_the_state_changes(end: bytes) -> None:
    message = form_message()
    cut = form_answer({"requestState": "a-state"}).replace(b'"result"', end + b'data: "result"')
    event = b": note" + end + b"id: 7" + end + b"data: " + cut + end + b"retry: 5" + end + end
    sent = make_handles(message).rewrite_event(event)
    before, _, rest = sent.partition(b"data: ")
    data, after = rest.split(end, 1)
    assert (before, after) == (b": note" + end + b"id: 7" + end, b"retry: 5" + end + end)
    retry = form_message(requestState=orjson.loads(data)["result"]["requestState"])
    assert orjson.loads(BINDER.open_state(retry, "mcp", ADA, NOW))["params"]["requestState"] == "a-state"


@pytest.mark.parametrize(
    "event",
    [
        b"data: " + form_answer({"content": []}) + b"\n\n",
        b"data: " + form_answer({"structuredContent": {"requestState": "nested"}}) + b"\n\n",
        b'data: "requestState"\n\n',
        b'event: "requestState"\n\n',
        b": requestState\nid: 7\ndata\n\n",
    ],
)
def test_an_event_without_a_state_passes_byte_for_byte(event: bytes) -> None:
    assert make_handles(form_message()).rewrite_event(event) == event


def test_a_task_made_in_an_event_is_found() -> None:
    handles = make_handles(form_message())
    event = b"data: " + form_answer({"resultType": "task", "taskId": "t-1"}) + b"\n\n"
    assert handles.rewrite_event(event) == event
    assert handles.new_tasks == ["t-1"]


def test_the_events_of_an_exchange_are_signed_for_its_session() -> None:
    signed = make_handles().sign_event_id(b"7")
    assert signed is not None
    assert BINDER.check_event_id(signed.decode(), EVENT) == "7"


def test_handles_show_no_secret() -> None:
    assert "Binder" not in repr(make_handles())
