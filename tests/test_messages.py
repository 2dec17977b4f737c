from __future__ import annotations

import base64
import json
from typing import Any, Literal

import httpx2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from multidict import CIMultiDict

from proxy.errors import Reason, RequestError
from proxy.messages import PROTOCOL_VERSION_KEY, Message, check_mirrored_headers, check_revision, parse_message

MODERN = "2026-07-28"


CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"


def encode(**members: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", **members})


def call(params: dict[str, Any] | None = None, method: str = "tools/call", **members: Any) -> bytes:
    return encode(id=1, method=method, params={"name": "echo"} if params is None else params, **members)


def refuse(body: bytes, reason: Reason = Reason.MESSAGE_INVALID, *, max_depth: int = 64) -> RequestError:
    with pytest.raises(RequestError) as refused:
        parse_message(body, max_depth=max_depth)
    assert refused.value.reason is reason
    return refused.value


def modern(method: str = "tools/call", rpc_id: int | None = 1, version: str = MODERN, **params: Any) -> Message:
    identity = {} if rpc_id is None else {"id": rpc_id}
    return parse_message(encode(**identity, method=method, params={**params, "_meta": {PROTOCOL_VERSION_KEY: version}}))


def headers_of(method: str, name: str | None = None, version: str = MODERN) -> CIMultiDict[str]:
    headers = CIMultiDict({"mcp-protocol-version": version, "mcp-method": method})
    if name is not None:
        headers["mcp-name"] = name
    return headers


def refuse_revision(body: bytes) -> RequestError:
    message = parse_message(body)
    with pytest.raises(RequestError) as refused:
        check_revision(message)
    return refused.value


def refuse_headers(
    message: Message,
    headers: CIMultiDict[str],
    *,
    required: bool = True,
    reason: Reason = Reason.HEADER_MISMATCH,
) -> RequestError:
    with pytest.raises(RequestError) as refused:
        check_mirrored_headers(message, headers, required=required)
    assert refused.value.reason is reason
    return refused.value


# what travels


def test_a_compact_message_travels_as_the_very_same_bytes() -> None:
    body = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"x":[1,0.5,"\xc3\xa9"]}}}'
    )
    message = parse_message(body)
    assert message.body is body
    assert (message.kind, message.method, message.id) == ("request", "tools/call", 1)
    assert message.params == {"name": "echo", "arguments": {"x": [1, 0.5, "é"]}}


def test_white_space_and_escapes_travel_in_their_canonical_form() -> None:
    message = parse_message(b' {"jsonrpc": "2.0", "id": "a",\n "\\u006dethod": "tools\\/list"} ')
    assert message.body == b'{"jsonrpc":"2.0","id":"a","method":"tools/list"}'
    assert message.method == "tools/list"


@pytest.mark.parametrize(
    "number",
    [
        "123456789012345678901234567890",
        "9007199254740993",
        "-9007199254740992",
        "18446744073709551615",
        "-0",
        "1e5",
        "1.50",
        "0.10000000000000001",
        "1E+2",
        "1e-400",
        "-0.00",
        "3.14159265358979323846264338327950288",
    ],
)
def test_a_number_that_readers_disagree_about_travels_digit_for_digit_and_matches_nothing(number: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"n":%s}}}'
    message = parse_message(body % number.encode())
    assert message.body == body % number.encode()
    value = message.params["arguments"]["n"]
    assert not isinstance(value, (int, float, str, bool, dict, list))
    assert value not in (None, 0, float(number))


@pytest.mark.parametrize("number", ["9007199254740991", "-9007199254740991", "0", "0.1234567890123456", "1.0", "-0.0"])
def test_a_number_that_everybody_reads_alike_stays_a_number(number: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"n":%s}}' % number.encode()
    message = parse_message(body)
    assert message.body == body
    assert repr(message.params["n"]) == number


def test_members_nobody_here_knows_pass_unchanged() -> None:
    body = encode(id=1, method="x/y", params={"vendor": {"Name": 1, "name": 2}, "зона": "z"}, trace="t")
    assert parse_message(body).body is body


def test_neither_arguments_nor_the_body_show_in_a_repr() -> None:
    assert "hunter2" not in repr(parse_message(call({"name": "echo", "arguments": {"password": "hunter2"}})))


# strict JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b"nul",
        b"{'a':1}",
        b'{"a":1,}',
        b"[1,]",
        b'{"a":1} x',
        b'{"a":1}{"a":1}',
        b'{"a":1}\x00',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":-1e999}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":0x10}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\t"}',
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'\x0b{"a":1}',
        b'\xc2\xa0{"a":1}',
        b'{"a":"\\x41"}',
        b'{"a":1//\n}',
    ],
)
def test_what_is_not_strict_json_is_unreadable(body: bytes) -> None:
    refuse(body, Reason.MESSAGE_UNREADABLE)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","\\u006dethod":"tools/call"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"a"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"deep":[[{"k":1,"\\u006b":1}]]}}}',
        b'{"jsonrpc":"2.0","id":1,"id":1,"method":"x"}',
        b'{"jsonrpc":"2.0","id":1,"method":"x","vendor":{"":1,"":2}}',
        b'{"jsonrpc":"2.0","a":' + b"[" * 1000 + b"]" * 1000 + b',"a":1}',
    ],
)
def test_a_member_named_twice_is_unreadable_at_any_depth_and_in_any_spelling(body: bytes) -> None:
    assert refuse(body, Reason.MESSAGE_UNREADABLE).rpc_id is None


def nest(levels: int) -> bytes:
    inner = levels - 1
    wide = b",".join([b"[]"] * 100)
    return b'{"jsonrpc":"2.0","id":1,"method":"x","wide":[%b],"deep":%b%b}' % (wide, b"[" * inner, b"]" * inner)


def test_a_message_may_nest_to_the_limit_and_no_deeper() -> None:
    assert parse_message(nest(64)).method == "x"
    assert "64 levels" in refuse(nest(65), Reason.MESSAGE_UNREADABLE).detail
    assert parse_message(nest(5), max_depth=5).method == "x"
    refuse(nest(6), Reason.MESSAGE_UNREADABLE, max_depth=5)
    refuse(nest(1000), Reason.MESSAGE_UNREADABLE)
    refuse(nest(100_000), Reason.MESSAGE_UNREADABLE)


def test_brackets_in_text_and_breadth_are_not_depth() -> None:
    body = encode(id=1, method="x", params={"text": "[{" * 500, "wide": [[]] * 500})
    assert parse_message(body).body is body


# the shape of JSON-RPC


@pytest.mark.parametrize(
    ("body", "kind", "method", "rpc_id"),
    [
        (encode(id=0, method="ping"), "request", "ping", 0),
        (encode(id="", method="ping"), "request", "ping", ""),
        (encode(id=2**53 - 1, method="ping"), "request", "ping", 2**53 - 1),
        (encode(id="é" * 64, method="$/x.y_z-1"), "request", "$/x.y_z-1", "é" * 64),
        (encode(method="notifications/initialized"), "notification", "notifications/initialized", None),
        (encode(id=5, result={}), "response", None, 5),
        (encode(id="r", error={"code": 1, "message": "m"}), "response", None, "r"),
    ],
)
def test_requests_notifications_and_responses_are_told_apart(
    body: bytes, kind: str, method: str | None, rpc_id: str | int | None
) -> None:
    message = parse_message(body)
    assert (message.kind, message.method, message.id) == (kind, method, rpc_id)
    assert type(message.id) is type(rpc_id)
    assert message.params == {}


@pytest.mark.parametrize(
    "body",
    [b"[]", b"[" + call() + b"]", b"[" + b",".join([call()] * 1000) + b"]", b"[[" + call() + b"]]", b"[1]"],
)
def test_a_batch_is_never_accepted(body: bytes) -> None:
    assert "Batches" in refuse(body).detail


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"true", b"1.5", b"123456789012345678901"])
def test_a_json_text_that_is_no_object_is_no_message(body: bytes) -> None:
    refuse(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"id":1,"method":"ping"}',
        b'{"jsonrpc":2.0,"id":1,"method":"ping"}',
        b'{"jsonrpc":"2","id":1,"method":"ping"}',
        b'{"jsonrpc":null,"id":1,"method":"ping"}',
        *(encode(id=1, method=method) for method in (None, 1, "", "a b", "é", "x" * 129, ["ping"], "ping\n", "a\0")),
        *(encode(id=rpc_id, method="ping") for rpc_id in (None, True, 1.0, 1.5, [1], {"a": 1}, "x" * 129, "é" * 65)),
        b'{"jsonrpc":"2.0","id":9007199254740992,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1e0,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":-0,"method":"ping"}',
        *(encode(id=1, method="ping", params=params) for params in (None, [1], "x", 1)),
        encode(id=1, method="ping", result={}),
        encode(id=1, method="ping", error={}),
        encode(method="ping", result=None),
        encode(id=1),
        encode(id=1, params={}),
        encode(result={}),
        encode(id=None, error={}),
        encode(id=True, result={}),
        encode(id=1, result={}, error={}),
        encode(id=1, result={}, params={}),
    ],
)
def test_what_is_not_one_json_rpc_message_is_invalid(body: bytes) -> None:
    refuse(body)


@pytest.mark.parametrize(
    "spelling", ["Method", "METHOD", "m\u0065thoD", "JSONRPC", "jsonRpc", "ID", "Params", "paramſ"]
)
def test_a_top_level_member_in_another_spelling_is_refused(spelling: str) -> None:
    refuse(encode(id=1, method="ping", **{spelling: "tools/call"}))


@pytest.mark.parametrize(
    "spelling",
    [
        "Name",
        "NAME",
        "Arguments",
        "argumentſ",
        "URI",
        "urı",
        "urİ",
        "Ref",
        "Cursor",
        "_Meta",
        "taskid",
        "TaskId",
        "taſKId",
        "tasKId",
        "task_id",
        "Task",
        "request_id",
        "request_state",
        "input_responses",
        "Notifications",
    ],
)
def test_a_member_of_params_in_another_spelling_is_refused(spelling: str) -> None:
    refuse(call({"name": "echo", spelling: "other"}))


@pytest.mark.parametrize("spelling", ["ProtocolVersion", "protocolverſion", "PROTOCOLVERSION", "clientinfo"])
def test_a_protocol_key_in_another_spelling_is_refused(spelling: str) -> None:
    refuse(call({"name": "echo", "_meta": {f"io.modelcontextprotocol/{spelling}": MODERN}}))


@pytest.mark.parametrize("spelling", ["Type", "NAME", "Uri"])
def test_a_member_of_a_reference_in_another_spelling_is_refused(spelling: str) -> None:
    refuse(call({"ref": {"type": "ref/prompt", "name": "p", spelling: "q"}}, method="completion/complete"))


@pytest.mark.parametrize("kind", [{"id": 1}, {}], ids=["request", "notification"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
@pytest.mark.parametrize(
    "params",
    [{}, *({"name": name} for name in (None, 1, "", "a b", "tοοl", "x" * 129, "a:b", "a\n", ["echo"], {"a": 1}))]
    + [{"name": "echo", "arguments": arguments} for arguments in (None, [1], "x", 1)],
)
def test_a_call_names_its_object_plainly_with_or_without_an_id(
    kind: dict[str, Any], method: str, params: dict[str, Any]
) -> None:
    refuse(encode(**kind, method=method, params=params), Reason.PARAMS_INVALID)
    params = {"name": "a.B_c/d-1", "arguments": {}}
    assert parse_message(encode(**kind, method=method, params=params)).params == params


@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe", "resources/unsubscribe"])
@pytest.mark.parametrize("uri", [None, 1, "", "a b", "a\tb", "a\u0085b", "a\u00a0b", "a\u2028", "\x7f", "x" * 2049, []])
def test_a_resource_is_named_by_a_uri_without_white_space(method: str, uri: object) -> None:
    refuse(call({"uri": uri}, method=method), Reason.PARAMS_INVALID)
    refuse(call({}, method=method), Reason.PARAMS_INVALID)
    assert parse_message(call({"uri": "aegis://é/*?x=1"}, method=method)).params["uri"] == "aegis://é/*?x=1"


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"])
def test_a_task_is_named_by_a_text(method: str) -> None:
    for task_id in (None, 1, "", ["t"], {"a": 1}):
        refuse(call({"taskId": task_id}, method=method), Reason.PARAMS_INVALID)
    assert parse_message(call({"taskId": "t-1"}, method=method)).params["taskId"] == "t-1"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"ref": None},
        {"ref": "x"},
        {"ref": {}},
        {"ref": {"type": "ref/tool", "name": "x"}},
        {"ref": {"type": []}},
        {"ref": {"type": "ref/prompt", "uri": "x"}},
        {"ref": {"type": "ref/resource", "name": "x"}},
    ],
)
def test_a_completion_refers_to_a_prompt_or_a_resource(params: dict[str, Any]) -> None:
    refuse(call(params, method="completion/complete"), Reason.PARAMS_INVALID)
    for ref in ({"type": "ref/prompt", "name": "p"}, {"type": "ref/resource", "uri": "a://{b}"}):
        assert parse_message(call({"ref": ref}, method="completion/complete")).params["ref"] == ref


def test_a_cancellation_names_a_json_rpc_id() -> None:
    for request_id in (None, True, 1.5, [1], {"a": 1}):
        refuse(encode(method="notifications/cancelled", params={"requestId": request_id}), Reason.PARAMS_INVALID)
    for params in ({"requestId": "1"}, {"requestId": 1}, {}):
        assert parse_message(encode(method="notifications/cancelled", params=params)).params == params


def test_the_body_alone_says_whether_a_message_is_modern() -> None:
    assert modern(name="echo").modern
    assert modern(name="echo", version="2027-01-01").protocol_version == "2027-01-01"
    legacy = parse_message(call({"name": "echo", "_meta": {"progressToken": 1}}))
    assert not legacy.modern
    assert legacy.protocol_version is None


@pytest.mark.parametrize("version", [None, 1, "", "2025-11-25", "2026-07-27", ["2026-07-28"]])
def test_a_message_cannot_name_a_revision_that_has_sessions(version: object) -> None:
    refuse(call({"name": "echo", "_meta": {PROTOCOL_VERSION_KEY: version}}))


@pytest.mark.parametrize("meta", [None, [], "x", 1])
def test_meta_is_an_object(meta: object) -> None:
    refuse(call({"name": "echo", "_meta": meta}))


def test_a_refusal_carries_the_id_once_it_is_known() -> None:
    assert refuse(encode(id="a", method="tools/call", params={}), Reason.PARAMS_INVALID).rpc_id == "a"
    assert refuse(encode(id=7, method="ping", Method="x")).rpc_id == 7
    assert refuse(encode(id=True, method="ping", params=[])).rpc_id is None
    assert refuse(encode(method="tools/call", params={}), Reason.PARAMS_INVALID).rpc_id is None
    assert refuse(encode(id=7, result={}, error={})).rpc_id is None


# the differential


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(st.tuples(st.text("abA", max_size=2), inner), max_size=3)
    ),
    max_leaves=12,
)


def write(value: object, draw: st.DrawFn) -> str:
    """A JSON text of the value in one of its many spellings; lists of pairs become objects, duplicates and all."""
    gap = draw(st.sampled_from(["", "", " ", "\n\t"]))
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        members = (f"{write(key, draw)}:{gap}{write(item, draw)}" for key, item in value)
        return "{" + f",{gap}".join(members) + "}"
    if isinstance(value, list):
        return "[" + f",{gap}".join(write(item, draw) for item in value) + gap + "]"
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(f"\\u{unit:04x}" for unit in memoryview(value.encode("utf-16-le")).cast("H")) + '"'
    if isinstance(value, float):
        return draw(st.sampled_from([repr(value), f"{value:.25e}", f"{value:.3f}"]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def message_texts(draw: st.DrawFn) -> bytes:
    pairs: list[tuple[str, object]] = [("jsonrpc", "2.0"), ("id", draw(st.integers())), ("method", "tools/call")]
    arguments = [(name, draw(values)) for name in draw(st.lists(st.text("ab", max_size=2), min_size=1, max_size=3))]
    pairs.append(("params", [("name", "echo"), ("arguments", arguments)]))
    pairs += [(name, draw(values)) for name in draw(st.lists(st.sampled_from(["method", "x", "y"]), max_size=2))]
    return write(draw(st.permutations(pairs)), draw).encode()


def read_without_duplicates(text: bytes) -> object:
    def keep(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise LookupError
        return dict(pairs)

    return json.loads(text, object_pairs_hook=keep)


@given(message_texts())
def test_the_upstream_reads_what_was_judged_and_no_duplicate_passes(text: bytes) -> None:
    try:
        message = parse_message(text)
    except RequestError:
        return
    assert json.loads(message.body) == read_without_duplicates(text)
    assert json.loads(message.body)["params"]["name"] == message.params["name"]
    again = parse_message(message.body)
    assert again.body == message.body
    assert (again.kind, again.method, again.id) == (message.kind, message.method, message.id)


@given(message_texts())
def test_duplicates_and_unsafe_ids_are_the_only_reasons_to_refuse_a_well_formed_text(text: bytes) -> None:
    try:
        expected = read_without_duplicates(text)
    except LookupError:
        refuse(text, Reason.MESSAGE_UNREADABLE)
        return
    assert isinstance(expected, dict)
    if abs(expected["id"]) > 2**53 - 1:
        refuse(text)
    else:
        assert parse_message(text).id == expected["id"]


@given(st.one_of(st.binary(max_size=60), st.text('{}[]":,\\u0019eE.-truefalsn ', max_size=40).map(str.encode)))
def test_whatever_the_bytes_the_answer_is_a_message_or_a_refusal(body: bytes) -> None:
    with pytest.raises(RequestError):
        parse_message(body)


@given(st.data())
def test_a_damaged_message_is_a_message_or_a_refusal(data: st.DataObject) -> None:
    body = bytearray(call({"name": "echo", "_meta": {PROTOCOL_VERSION_KEY: MODERN}, "arguments": {"a": [1.5, "é"]}}))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = parse_message(bytes(body))
    except RequestError:
        return
    assert json.loads(message.body) == json.loads(body)


# the mirrored headers


def test_a_modern_request_passes_with_its_three_headers() -> None:
    check_mirrored_headers(modern(name="echo"), headers_of("tools/call", "echo"))
    check_mirrored_headers(modern("prompts/get", name="p"), headers_of("prompts/get", "p"))
    check_mirrored_headers(modern("resources/read", uri="a://b"), headers_of("resources/read", "a://b"))
    meta = {PROTOCOL_VERSION_KEY: MODERN, CAPABILITIES_KEY: {"extensions": {"io.modelcontextprotocol/tasks": {}}}}
    task = parse_message(encode(id=1, method="tasks/get", params={"taskId": "t", "_meta": meta}))
    check_mirrored_headers(task, headers_of("tasks/get", "t"))
    check_mirrored_headers(modern("tools/list", cursor="c"), headers_of("tools/list"))
    check_mirrored_headers(modern("server/discover"), headers_of("server/discover"))


@pytest.mark.parametrize("header", ["mcp-protocol-version", "mcp-method", "mcp-name"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_modern_request_without_one_of_its_headers_is_refused(method: str, header: str) -> None:
    headers = headers_of(method, "echo")
    del headers[header]
    assert refuse_headers(modern(method, name="echo"), headers).rpc_id == 1


def test_a_modern_notification_needs_only_the_version() -> None:
    notification = modern("notifications/cancelled", rpc_id=None, requestId=1)
    check_mirrored_headers(notification, CIMultiDict({"MCP-Protocol-Version": MODERN}))
    assert refuse_headers(notification, CIMultiDict({"Mcp-Method": "notifications/cancelled"})).rpc_id is None


def test_over_http_and_sse_a_modern_request_needs_no_headers_but_must_not_contradict_them() -> None:
    check_mirrored_headers(modern(name="echo"), CIMultiDict(), required=False)
    refuse_headers(modern(name="echo"), CIMultiDict({"Mcp-Name": "other"}), required=False)
    refuse_headers(modern(name="echo"), CIMultiDict({"MCP-Protocol-Version": "2025-11-25"}), required=False)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-protocol-version", "2026-07-29"),
        ("mcp-protocol-version", ""),
        ("mcp-method", "tools/list"),
        ("mcp-method", "Tools/call"),
        ("mcp-method", ""),
        ("mcp-name", "Echo"),
        ("mcp-name", ""),
        ("mcp-name", "tools/call"),
        ("mcp-name", "echo "),
    ],
)
@pytest.mark.parametrize("rpc_id", [1, None], ids=["request", "notification"])
def test_a_header_that_contradicts_the_body_is_refused(rpc_id: int | None, header: str, value: str) -> None:
    headers = headers_of("tools/call", "echo")
    headers[header] = value
    assert refuse_headers(modern(rpc_id=rpc_id, name="echo"), headers).rpc_id == rpc_id


@pytest.mark.parametrize("header", ["MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"])
def test_a_repeated_header_is_refused_even_if_it_says_the_same(header: str) -> None:
    headers = headers_of("tools/call", "echo")
    headers.add(header, headers[header])
    refuse_headers(modern(name="echo"), headers)
    repeated = CIMultiDict([(header, headers[header])] * 2)
    refuse_headers(parse_message(call()), repeated)


def sentinel(text: bytes) -> str:
    return f"=?base64?{base64.b64encode(text).decode()}?="


@pytest.mark.parametrize("uri", ["a://é", "a://plain", "=?base64?YQ==?="])
def test_a_name_may_come_in_base64(uri: str) -> None:
    headers = headers_of("resources/read", sentinel(uri.encode()))
    check_mirrored_headers(modern("resources/read", uri=uri), headers)


@pytest.mark.parametrize(
    "value",
    [
        sentinel(b"other"),
        sentinel(b"echo\xff"),
        "=?base64?ZWNobw?=",
        "=?base64?ZWNobw== ?=",
        "=?base64?ZWNobx==?=",
        "=?BASE64?ZWNobw==?=",
        "=?base64?ZWNobw==",
        "=?base64??=",
        "=?base64?ZWNo\nbw==?=",
        "=?base64?é?=",
        "echö",
    ],
)
def test_only_canonical_base64_of_the_name_is_accepted(value: str) -> None:
    refuse_headers(modern(name="echo"), headers_of("tools/call", value))


def test_a_name_beyond_ascii_must_come_in_base64() -> None:
    refuse_headers(modern("resources/read", uri="a://é"), headers_of("resources/read", "a://é"))


def test_the_name_is_the_one_of_the_method_and_not_any_other_text() -> None:
    refuse_headers(modern(name="echo", uri="other"), headers_of("tools/call", "other"))


def test_a_name_that_looks_like_base64_must_itself_be_encoded() -> None:
    uri = "=?base64?YQ==?="
    refuse_headers(modern("resources/read", uri=uri), headers_of("resources/read", uri))


def test_a_legacy_message_passes_with_a_legacy_version_or_none() -> None:
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        check_mirrored_headers(parse_message(call()), CIMultiDict({"mcp-protocol-version": version}))
    check_mirrored_headers(parse_message(call()), CIMultiDict())
    check_mirrored_headers(parse_message(encode(id=1, result={})), CIMultiDict({"mcp-protocol-version": "2025-11-25"}))


@pytest.mark.parametrize("version", ["2026-07-28", "2027-01-01", "latest", "zzz"])
def test_a_modern_header_over_a_legacy_request_is_refused(version: str) -> None:
    """As a request of that revision that lacks what it must repeat in `_meta`."""
    headers = CIMultiDict({"mcp-protocol-version": version})
    assert refuse_headers(parse_message(call()), headers, reason=Reason.PARAMS_INVALID).rpc_id == 1


@pytest.mark.parametrize(
    "method",
    ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list"],
)
def test_a_modern_request_for_what_its_revision_has_no_more_is_unknown_whatever_it_lacks(method: str) -> None:
    meta = {"_meta": {PROTOCOL_VERSION_KEY: MODERN}}
    assert refuse_revision(encode(id=1, method=method, params=meta)).reason is Reason.METHOD_UNKNOWN
    check_revision(parse_message(encode(id=1, method=method, params={"uri": "a://b", "taskId": "t"})))


@pytest.mark.parametrize("capabilities", [None, {}, [], {"extensions": None}, {"extensions": {"other/one": {}}}])
def test_a_modern_client_that_does_not_speak_tasks_is_told_so_before_anything_is_looked_up(
    capabilities: object,
) -> None:
    meta = {"_meta": {PROTOCOL_VERSION_KEY: MODERN, CAPABILITIES_KEY: capabilities}}
    refused = refuse_revision(encode(id=1, method="tasks/get", params={**meta, "taskId": "t"}))
    assert refused.reason is Reason.CAPABILITY_MISSING
    assert refused.data == {"requiredCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}}}


def test_a_client_may_repeat_its_modern_version_over_what_is_no_request() -> None:
    for body in (encode(method="notifications/progress", params={"progress": 1}), encode(id=1, result={})):
        check_mirrored_headers(parse_message(body), CIMultiDict({"mcp-protocol-version": MODERN}))


def test_a_legacy_message_may_mirror_itself_but_not_something_else() -> None:
    message = parse_message(call({"taskId": "t"}, method="tasks/result"))
    check_mirrored_headers(message, CIMultiDict({"Mcp-Name": "t", "Mcp-Method": "tasks/result"}))
    refuse_headers(message, CIMultiDict({"Mcp-Name": "u"}))
    refuse_headers(message, CIMultiDict({"Mcp-Method": "tasks/get"}))
    refuse_headers(parse_message(encode(id=1, result={})), CIMultiDict({"Mcp-Method": "tools/call"}))


def test_the_name_of_an_unknown_method_must_be_somewhere_in_its_params() -> None:
    message = modern("vendor/open", volume="v1", size=3)
    check_mirrored_headers(message, headers_of("vendor/open", "v1"))
    refuse_headers(message, headers_of("vendor/open", "v2"))
    refuse_headers(message, headers_of("vendor/open", "3"))
    refuse_headers(modern("tools/list"), headers_of("tools/list", "echo"))


def test_parameter_headers_are_left_alone() -> None:
    headers = headers_of("tools/call", "echo")
    headers.extend([("Mcp-Param-Region", "a"), ("Mcp-Param-Region", "b")])
    check_mirrored_headers(modern(name="echo"), headers)


@pytest.mark.parametrize(("mode", "modern_messages"), [("legacy", False), ("auto", True), (MODERN, True)])
async def test_whatever_the_official_client_sends_passes_in_every_mode(
    mode: Literal["legacy", "auto"], modern_messages: bool
) -> None:
    def repeat(text: str) -> str:
        return text

    server = MCPServer("upstream")
    server.tool("echo")(repeat)
    server.resource("aegis://texts/{text}")(repeat)
    app = server.streamable_http_app(json_response=True)
    passed: list[Message] = []

    async def check(request: httpx2.Request) -> None:
        if request.method == "POST":
            message = parse_message(await request.aread())
            check_mirrored_headers(message, CIMultiDict(request.headers.multi_items()))
            passed.append(message)

    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), event_hooks={"request": [check]})
    endpoint = streamable_http_client("http://127.0.0.1:8000/mcp", http_client=http)
    async with app.router.lifespan_context(app), http, Client(endpoint, mode=mode) as client:
        await client.list_tools()
        await client.call_tool("echo", {"text": "é \x7f \u2028", "number": 1e-7, "id": 2**60})
        await client.read_resource("aegis://texts/b%20c")

    assert {"tools/list", "tools/call", "resources/read"} <= {message.method for message in passed}
    assert all(message.modern is modern_messages for message in passed)
