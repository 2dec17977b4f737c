from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.filtering import (
    LIST_KINDS,
    Allow,
    ListView,
    SseFilter,
    UnfilterableAnswer,
    filter_answer,
    form_view,
    refuse_lists,
)
from proxy.messages import parse_message
from proxy.policy import parse_policy


def allow_open(kind: str, name: str) -> bool:
    return kind in {"tool", "prompt", "uri", "uri_template"} and name.startswith("open")


def allow_all(kind: str, name: str) -> bool:
    return True


def allow_none(kind: str, name: str) -> bool:
    return False


OPEN, ALL, NONE = ListView(allow_open), ListView(allow_all), ListView(allow_none)
LAX = ListView(allow_none, strict=False)


def answer(result: Any, **members: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result, **members})


def tools(*names: str, **members: Any) -> bytes:
    return answer({"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names], **members})


def names_in(body: bytes) -> list[str]:
    return [tool["name"] for tool in orjson.loads(body)["result"]["tools"]]


# one answer


@pytest.mark.parametrize(
    ("member", "field"),
    [("tools", "name"), ("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate")],
)
def test_entries_that_are_not_allowed_disappear_and_the_rest_keeps_its_order(member: str, field: str) -> None:
    entries = [{field: name, "title": f"t {name}"} for name in ("open-2", "secret", "open-1", "hidden", "open-3")]
    filtered = orjson.loads(filter_answer(answer({member: entries, "nextCursor": "c", "x": 1}, extra=[1]), OPEN))
    assert filtered == {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {member: [entries[0], entries[2], entries[4]], "nextCursor": "c", "x": 1},
        "extra": [1],
    }


def test_allow_hears_the_kind_of_each_name() -> None:
    asked: list[tuple[str, str]] = []
    body = answer(
        {
            "tools": [{"name": "t"}],
            "prompts": [{"name": "p"}],
            "resources": [{"uri": "r", "name": "n"}],
            "resourceTemplates": [{"uriTemplate": "u/{x}", "name": "n"}],
        }
    )

    def allow(kind: str, name: str) -> bool:
        asked.append((kind, name))
        return False

    assert not any(orjson.loads(filter_answer(body, ListView(allow)))["result"].values())
    assert asked == [("tool", "t"), ("prompt", "p"), ("uri", "r"), ("uri_template", "u/{x}")]


def test_an_emptied_page_keeps_its_cursor() -> None:
    filtered = orjson.loads(filter_answer(tools("secret", nextCursor=""), OPEN))
    assert filtered["result"] == {"tools": [], "nextCursor": ""}


@pytest.mark.parametrize(
    "entry", [None, 1, "open", [], {}, {"name": None}, {"name": 1}, {"Name": "open"}, {"uri": "open"}]
)
def test_an_entry_without_a_readable_name_is_dropped(entry: object) -> None:
    assert orjson.loads(filter_answer(answer({"tools": [entry]}), ALL))["result"] == {"tools": []}


@pytest.mark.parametrize("scope", ["public", "PRIVATE", None, 1])
def test_a_list_leaves_as_private_even_if_nothing_was_taken_out(scope: object) -> None:
    body = tools("open", cacheScope=scope, ttlMs=5)
    assert orjson.loads(filter_answer(body, ALL)) == orjson.loads(tools("open", cacheScope="private", ttlMs=5))


@pytest.mark.parametrize(
    "body",
    [
        tools("open-1", "open-2"),
        tools("open-1", cacheScope="private"),
        b' {"jsonrpc" : "2.0", "id":1, "result" : {"tools":[ {"name":"open\\u002d1","n":1e5} ]}} ',
        answer({"tools": None}),
        answer({"content": [{"type": "text", "text": '{"tools":[{"name":"secret"}]}'}], "cacheScope": "public"}),
        answer({"capabilities": {"tools": {"listChanged": True}}}),
        answer({"structuredContent": {"tools": [{"name": "secret"}]}}),
        answer(None),
        answer([{"tools": [{"name": "secret"}]}]),
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "tools"}}',
        b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
        b'{"jsonrpc":"2.0","method":"x","params":{"tools":[{"name":"secret"}]}}',
    ],
)
def test_what_needs_no_change_passes_byte_for_byte(body: bytes) -> None:
    assert filter_answer(body, OPEN) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nope",
        tools("open")[:-1],
        tools("open").replace(b"}", b",}"),
        b"\xef\xbb\xbf" + tools("open"),
        b"[" + tools("open") + b"]",
        b"[]",
        b"1",
        b"null",
        tools("open").decode().encode("utf-16"),
        b'{"result":{"tools":[],"tools":[{"name":"secret"}]}}',
        b'{"result":{},"\\u0072esult":{"tools":[]}}',
        b'{"result":{"tools":[{"name":"open","n":NaN}]}}',
        b'{"result":' + b"[" * 300 + b"]" * 300 + b"}",
        answer({"tools": {"secret": {}}}),
        answer({"tools": "secret"}),
        answer({"resources": True}),
    ],
)
def test_an_answer_that_cannot_be_read_strictly_is_unfilterable(body: bytes) -> None:
    with pytest.raises(UnfilterableAnswer):
        filter_answer(body, ALL)


def test_numbers_survive_filtering_digit_for_digit() -> None:
    body = (
        b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"result":{"tools":[{"name":"open","inputSchema":'
        b'{"maximum":18446744073709551616,"minimum":-9007199254740993,"multipleOf":1.10,"x":1e400}},%b]}}'
    )
    body = body.replace(b'"x":1e400', b'"x":1E+2')
    assert filter_answer(body % b'{"name":"secret"}', OPEN) == (body % b"").replace(b",]", b"]")


def test_a_thousand_tools_are_filtered() -> None:
    names = [f"{'open' if number % 3 else 'secret'}-{number}" for number in range(1000)]
    assert names_in(filter_answer(tools(*names), OPEN)) == [name for name in names if name.startswith("open")]


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(["open", "secret", "open-2"]), json_values), max_size=5), json_values)
def test_filtering_only_ever_removes_entries(entries: list[tuple[str, Any]], other: object) -> None:
    listed = [{"name": name, "annotations": value} for name, value in entries]
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"x": other, "tools": listed, "nextCursor": "c"}}).encode()
    try:
        filtered = filter_answer(body, OPEN)
    except UnfilterableAnswer:
        assert b"Infinity" in body or b"\\ud" in body
        return
    expected = json.loads(body)
    expected["result"]["tools"] = [tool for tool in expected["result"]["tools"] if tool["name"] != "secret"]
    assert json.loads(filtered) == expected


@given(st.binary(max_size=60))
def test_whatever_the_bytes_an_answer_passes_or_is_unfilterable(body: bytes) -> None:
    try:
        assert filter_answer(body, NONE) == body
    except UnfilterableAnswer:
        with pytest.raises(UnfilterableAnswer):
            filter_answer(body, ALL)


# results of tools that list tools

RULES = """
version: 1
default_tier: pro
scopes: { a:b: { title: A } }
presets: {}
tiers: { pro: ["*"] }
routes:
  - id: mcp
    path: /mcp
    methods: [POST, GET]
    upstream: mcp
    protocol: mcp
    rules:
      - { tool: [list, "find.*"], allow: any-key, lists_tools: found.tools-of-ours }
      - { tool: all, allow: any-key, lists_tools: result }
      - { tool: other, allow: any-key }
...
"""
_MATCH = parse_policy(RULES, "test.yaml").find_route("/mcp")
assert _MATCH is not None
MATCH = _MATCH


def view_for(method: str | None, tool: str | None = None, allow: Allow = allow_open) -> ListView:
    """What a message on that route asks for; None: a stream."""
    if method is None:
        return form_view(None, MATCH, allow)
    params = {"name": tool, "arguments": {}} if tool is not None else {"taskId": "t"}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return form_view(parse_message(orjson.dumps(message)), MATCH, allow)


ASKED, OTHER, STREAM = view_for("tools/call", "list"), view_for("tools/call", "other"), view_for(None)
TASK = view_for("tasks/result")
SHOWN, HIDDEN = {"name": "open", "x": 1}, {"name": "secret", "x": 2}


def found(*entries: Any, **members: Any) -> dict[str, Any]:
    return {"found": {"tools-of-ours": list(entries), "total": 9}, **members}


def text(value: object, **members: Any) -> dict[str, Any]:
    return {"type": "text", "text": value if isinstance(value, str) else json.dumps(value, indent=1), **members}


def result_of(body: bytes) -> Any:
    parsed = orjson.loads(body)
    for block in parsed["result"].get("content") or ():
        if block["type"] == "text" and block["text"].startswith("{"):
            block["text"] = orjson.loads(block["text"])
    return parsed["result"]


@pytest.mark.parametrize("method", LIST_KINDS)
def test_what_asks_for_a_list_is_read_strictly(method: str) -> None:
    assert view_for(method).strict
    assert STREAM.strict
    assert not view_for("tools/lists").strict


@pytest.mark.parametrize(
    ("tool", "awaits"), [("list", True), ("find.some", True), ("all", True), ("other", False), ("nothing", False)]
)
def test_the_rule_of_a_tool_says_that_its_result_lists_tools(tool: str, awaits: bool) -> None:
    view = view_for("tools/call", tool)
    assert (view.awaits_tools, view.strict, view.reads_texts) == (awaits, awaits, awaits)
    assert set(view.tool_lists) == {("found", "tools-of-ours"), ("result",)}


@pytest.mark.parametrize("view", [ASKED, STREAM, TASK, OTHER])
def test_a_list_of_tools_is_filtered_in_both_places_and_its_counts_stay(view: ListView) -> None:
    whole = found(HIDDEN, SHOWN, HIDDEN, page=2)
    filtered = result_of(
        filter_answer(answer({"content": [text(whole, annotations={})], "structuredContent": whole, "x": 1}), view)
    )
    kept = found(SHOWN, page=2)
    assert filtered == {"content": [text("", annotations={}) | {"text": kept}], "structuredContent": kept, "x": 1}


@pytest.mark.parametrize("view", [ASKED, STREAM, TASK, OTHER])
def test_beside_a_list_of_tools_what_could_tell_of_them_in_other_words_is_left_out(view: ListView) -> None:
    others = [
        text("secret: does things"),
        text({"name": "secret"}),
        text('{"found":{"tools-of-ours":[]},"found":{"tools-of-ours":[{"name":"secret"}]}}'),
        {"type": "resource", "resource": {"uri": "a://b", "text": '{"name":"secret"}'}},
        "secret",
    ]
    body = answer({"content": others, "structuredContent": found(SHOWN)})
    assert result_of(filter_answer(body, view)) == {"content": [], "structuredContent": found(SHOWN)}


@pytest.mark.parametrize("view", [ASKED, STREAM, TASK])
def test_an_older_server_has_the_list_in_a_text_only(view: ListView) -> None:
    body = answer({"content": [text(found(HIDDEN, SHOWN))], "isError": False})
    assert result_of(filter_answer(body, view)) == {"content": [text("") | {"text": found(SHOWN)}], "isError": False}


def test_what_is_structured_otherwise_stays_beside_a_list_in_a_text() -> None:
    body = answer({"content": [text(found(HIDDEN, SHOWN))], "structuredContent": {"page": 1}})
    expected = {"content": [text("") | {"text": found(SHOWN)}], "structuredContent": {"page": 1}}
    assert result_of(filter_answer(body, STREAM)) == expected


def test_what_another_tool_says_in_a_text_alone_is_its_own() -> None:
    """A file that happens to look like a list is handed out as it is."""
    body = answer({"content": [text(found(HIDDEN))]})
    assert filter_answer(body, OTHER) == body


def test_a_list_without_a_name_for_it_is_found_where_sdks_put_it() -> None:
    body = answer({"content": [text(HIDDEN), text(SHOWN)], "structuredContent": {"result": [HIDDEN, SHOWN]}})
    expected = {"content": [], "structuredContent": {"result": [SHOWN]}}
    assert result_of(filter_answer(body, view_for("tools/call", "all"))) == expected


@pytest.mark.parametrize("entry", [None, "secret", ["secret"], {"Name": "open"}, {"name": 1}])
def test_in_a_list_that_was_asked_for_what_has_no_readable_name_is_dropped(entry: object) -> None:
    body = answer({"content": [], "structuredContent": found(entry, SHOWN)})
    assert result_of(filter_answer(body, ASKED))["structuredContent"] == found(SHOWN)
    alone = answer({"content": [], "structuredContent": found(entry)})
    assert result_of(filter_answer(alone, ASKED))["structuredContent"] == found()


@pytest.mark.parametrize(
    "structured",
    [
        found(),
        found("secret"),
        found({"title": "secret"}),
        {"found": {"tools-of-ours": 9}},
        {"found": {"tools-of-ours": {"secret": {}}}},
        {"found": [HIDDEN]},
        {"found": None},
        {"tools-of-ours": [HIDDEN]},
        {"deeper": found(HIDDEN)},
        [HIDDEN],
        "secret",
    ],
)
@pytest.mark.parametrize("view", [OTHER, STREAM, TASK])
def test_what_is_no_list_of_named_things_at_that_place_passes_byte_for_byte(view: ListView, structured: Any) -> None:
    body = answer({"content": [text("a word"), text(structured)], "structuredContent": structured})
    assert filter_answer(body, view) == body


@pytest.mark.parametrize(
    "result",
    [
        {"content": []},
        {"content": [text("secret")]},
        {"content": [text("secret")], "structuredContent": None},
        {"content": [text({"items": [HIDDEN]})]},
        {"content": "secret"},
        {"content": {"text": "secret"}},
        {"structuredContent": {}},
        {"structuredContent": {"items": [HIDDEN]}},
        {"structuredContent": {"found": {"tools-of-ours": {"secret": {}}}}},
        {"structuredContent": {"items": [HIDDEN]}, "content": [text(found(SHOWN))]},
        {"structuredContent": {"items": [HIDDEN]}, "content": [text(found(SHOWN))], "isError": True},
        {"content": [text("secret")], "isError": "true"},
    ],
)
def test_a_list_that_was_asked_for_and_is_not_where_it_should_be_is_withheld(result: dict[str, Any]) -> None:
    with pytest.raises(UnfilterableAnswer):
        filter_answer(answer(result), ASKED)
    stream = b"data: a\n\ndata: " + answer(result) + b"\n\n"
    assert filter_stream(stream, view=ASKED) == (b"", 2)


@pytest.mark.parametrize(
    "body",
    [
        answer({"content": [text("no such query")], "isError": True}),
        answer({"content": [text("no such query")], "structuredContent": {"code": 3}, "isError": True}),
        answer({"task": {"taskId": "t", "status": "working"}}),
        answer({"resultType": "input_required", "inputRequests": {}}),
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}',
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}',
        b'{"jsonrpc":"2.0","id":2,"method":"sampling/createMessage","params":{}}',
    ],
)
def test_failures_tasks_questions_and_progress_pass_where_a_list_is_awaited(body: bytes) -> None:
    assert filter_answer(body, ASKED) == body
    stream = b"id: 1\ndata:\n\ndata: " + body + b"\n\n"
    assert filter_stream(stream, view=ASKED) == (stream, 0)


def test_a_failure_that_lists_tools_all_the_same_is_filtered() -> None:
    body = answer({"content": [text(found(HIDDEN, SHOWN))], "isError": True})
    assert result_of(filter_answer(body, ASKED))["content"] == [text("") | {"text": found(SHOWN)}]


def test_an_answer_that_needs_no_change_passes_byte_for_byte() -> None:
    body = b" " + answer({"content": [text(found(SHOWN))], "structuredContent": found(SHOWN)})
    assert filter_answer(body, ASKED) == body


def test_a_list_of_tools_leaves_as_private() -> None:
    body = answer({"content": [], "structuredContent": found(SHOWN), "cacheScope": "public"})
    assert orjson.loads(filter_answer(body, ASKED))["result"]["cacheScope"] == "private"


def test_the_result_that_a_task_brings_is_filtered() -> None:
    """SEP-2663: in the answer to `tasks/get`, and in a notification on a stream."""
    whole = {"content": [text(found(HIDDEN))], "structuredContent": found(HIDDEN, SHOWN)}
    task = {"taskId": "t", "status": "completed", "result": whole}
    polled = orjson.loads(filter_answer(answer(task), view_for("tasks/get")))["result"]
    notice = orjson.dumps({"jsonrpc": "2.0", "method": "notifications/tasks", "params": task})
    listened = view_for("subscriptions/listen")
    sent, dropped = filter_stream(b"data: " + notice + b"\n\n", view=listened)
    for got in (polled, orjson.loads(sent.removeprefix(b"data: "))["params"]):
        assert got["status"] == "completed"
        assert got["result"]["structuredContent"] == found(SHOWN)
        assert "secret" not in json.dumps(got)
    assert dropped == 0


ESCAPED = [
    lambda body: body,
    lambda body: body.replace(b"tools-of-ours", b"tools\\u002dof\\u002dours"),
    lambda body: body.replace(b"tools-of-ours", b"\\u0074ools-of-ours"),
    lambda body: body.replace(b'\\"', b"\\u0022"),
    lambda body: body.replace(b'\\"tools', b'\\"\\\\u0074ools'),
]


@pytest.mark.parametrize("escape", ESCAPED)
@pytest.mark.parametrize("view", [STREAM, TASK])
def test_a_list_of_tools_is_found_behind_escapes(view: ListView, escape: Any) -> None:
    body = escape(answer({"content": [{"type": "text", "text": json.dumps(found(HIDDEN, SHOWN))}]}))
    assert result_of(filter_answer(body, view))["content"] == [text("") | {"text": found(SHOWN)}]
    sent, dropped = filter_stream(b"data: " + body + b"\n\n", view=view)
    assert b"secret" not in sent
    assert dropped == 0


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_an_answer_too_large_to_be_held_is_cut_before_a_list_of_tools(size: int) -> None:
    body = b" " * 200 + answer({"structuredContent": found(HIDDEN)})
    pieces = iter([body[at : at + size] for at in range(0, len(body), size)])

    async def read() -> bytes:
        return next(pieces, b"")

    sent: list[bytes] = []
    read_on = refuse_lists(read, OTHER)

    async def relay() -> None:
        while piece := await read_on():
            sent.append(piece)

    with pytest.raises(UpstreamError):
        await relay()
    assert b"secret" not in b"".join(sent)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(plain_values, plain_values, st.sampled_from([ASKED, OTHER, STREAM, TASK]))
def test_whatever_a_tool_answers_no_hidden_name_comes_out_of_the_list(
    structured: object, other: object, view: ListView
) -> None:
    for value in (structured, found(HIDDEN, structured, SHOWN)):
        body = orjson.dumps({"result": {"content": [text({"a": other})], "structuredContent": value}})
        try:
            filtered = filter_answer(body, view)
        except UnfilterableAnswer:
            assert view is ASKED
            assert value is structured
            continue
        if value is not structured:
            assert orjson.loads(filtered)["result"]["structuredContent"]["found"]["total"] == 9
            assert b'"secret"' not in filtered


# event streams


def filter_stream(
    stream: bytes, cuts: Iterable[int] = (), view: ListView = OPEN, limit: int = 10_000
) -> tuple[bytes, int]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(stream)}), len(stream)]
    sse = SseFilter(view, max_event_bytes=limit)
    sent = b"".join([sse.feed(stream[start:end]) for start, end in itertools.pairwise(edges)])
    return sent + sse.finish(), sse.dropped


def check_every_cut(stream: bytes, expected: bytes, dropped: int = 0) -> None:
    for cut in range(len(stream) + 1):
        assert filter_stream(stream, [cut]) == (expected, dropped)
    assert filter_stream(stream, range(len(stream))) == (expected, dropped)


DIALECTS = [b"\n", b"\r\n", b"\r"]
UNTOUCHED = [
    b"",
    b": ping\n\n",
    b":\n",
    b"\n\n\n",
    b"id: 1\ndata:\n\n",  # a priming event
    b"id: 1\nretry: 3000\ndata\n\n",
    b"retry: 5\n\n",
    b'id: "tools"\ndata:\n\n',
    b"event: endpoint\ndata: /messages?session_id=tools\n\n",
    b"event: message\nid: a/b\ndata: " + tools("open-1") + b"\n\n",
    b"data:" + tools("open-1", cacheScope="private") + b"\n\n",
    b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}\n\n',
    b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[],\ndata: "structuredContent":{"x":NaN}}}\n\n',
    b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\\ud83d"}]}}\n\n',
    b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"\\"tools\\" NaN"}]}}\n\n',
    b"data: not json\n\n",
    b"data: \xff\xfe\n\n",
    b"unknown field\n\ndata: x",
    b": ping\n: ping\n\ndata: x\n\n: ping\nid: 4\n: inside\ndata: y\n\n",
]


@pytest.mark.parametrize("end", DIALECTS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("stream", [*UNTOUCHED, b"".join(UNTOUCHED)])
def test_a_stream_with_nothing_to_filter_passes_byte_for_byte(stream: bytes, bom: bytes, end: bytes) -> None:
    stream = bom + stream.replace(b"\n", end)
    check_every_cut(stream, stream)


@pytest.mark.parametrize("end", DIALECTS)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_only_the_data_of_a_list_answer_changes(bom: bytes, end: bytes) -> None:
    around = b": hello\n\nid: 7_1\nevent: message\nretry: 500\n%b\n: note\n\n: ping\n\n"
    before = bom + (around % (b"data: " + tools("open", "secret"))).replace(b"\n", end)
    after = bom + (around % (b"data: " + tools("open"))).replace(b"\n", end)
    check_every_cut(before, after)


@pytest.mark.parametrize("end", DIALECTS)
def test_data_over_several_lines_is_one_answer(end: bytes) -> None:
    text = json.dumps(orjson.loads(tools("secret", "open", nextCursor="c")), indent=1).encode()
    lines = b"".join(b"data:" + line + end for line in text.splitlines())
    check_every_cut(
        b"id: 1" + end + lines + end, b"id: 1" + end + b"data: " + tools("open", nextCursor="c") + end + end
    )


def test_a_name_behind_escapes_is_found() -> None:
    stream = b"data: " + tools("secret", "open").replace(b'"tools"', b'"\\u0074ool\\u0073"') + b"\n\n"
    assert filter_stream(stream) == (b"data: " + tools("open") + b"\n\n", 0)


@pytest.mark.parametrize(
    "data",
    [
        b'{"result":{"tools":[{"name":"secret"}',
        b"[" + tools("secret") + b"]",
        b'{"result":{"tools":[{"name":"secret","n":NaN}]}}',
        b'{"result":{"tools":[{"name":"secret"}],"tools":[]}}',
        b'{"result":{"prompts":{"name":"secret"}}}',
    ],
)
def test_a_list_answer_that_cannot_be_read_is_dropped_whole_and_counted(data: bytes) -> None:
    stream = b"data: a\n\nid: 2\nevent: message\ndata: %b\n\nid: 3\ndata: b\n\n" % data
    check_every_cut(stream, b"data: a\n\nid: 3\ndata: b\n\n", dropped=1)


def test_a_list_answer_cut_off_by_the_end_of_the_stream_is_judged_too() -> None:
    whole = b"data: " + tools("secret", "open")
    assert filter_stream(whole) == (b"data: " + tools("open"), 0)
    assert filter_stream(whole[:-10]) == (b"", 1)


def test_an_event_beyond_the_limit_is_dropped_and_counted() -> None:
    stream = b"data: " + b"x" * 200 + b"\n\ndata: y\n\n"
    assert filter_stream(stream, limit=100) == (b"data: y\n\n", 1)
    assert filter_stream(stream, range(len(stream)), limit=100) == (b"data: y\n\n", 1)


def test_replayed_and_legacy_streams_are_filtered_whatever_the_ids() -> None:
    events = [
        (b"id: s1_4\r\n", answer({"content": []}, id="a")),
        (b"id: s1_5\r\n", tools("secret", "open")),
        (b"event: message\r\nid: s1_6\r\n", answer({"prompts": [{"name": "secret"}]}, id=None)),
        (b"", answer({"resources": [{"uri": "secret://"}, {"uri": "open://"}], "nextCursor": "n"}, id=99)),
    ]
    stream = b"".join(head + b"data: " + data + b"\r\n\r\n" for head, data in events)
    expected = b"".join(head + b"data: " + filter_answer(data, OPEN) + b"\r\n\r\n" for head, data in events)
    check_every_cut(stream, expected)
    assert b"secret" not in expected


def test_an_event_is_sent_as_soon_as_it_is_complete() -> None:
    sse = SseFilter(OPEN)
    assert sse.feed(b": ping\n") == b": ping\n"
    assert sse.feed(b"\ndata: a\n") == b"\n"
    assert sse.feed(b"\ndata: b") == b"data: a\n\n"


def test_a_thousand_tools_in_one_event_are_filtered() -> None:
    names = [f"{'open' if number % 2 else 'secret'}-{number}" for number in range(1000)]
    stream = b"event: message\ndata: " + tools(*names) + b"\n\n"
    sent, dropped = filter_stream(stream, range(0, len(stream), 1400), limit=1_000_000)
    assert names_in(sent.removeprefix(b"event: message\ndata: ")) == [name for name in names if name.startswith("open")]
    assert dropped == 0


parts = st.sampled_from(
    [*UNTOUCHED, b"data: " + tools("open", "secret") + b"\n\n", b"id: 1\n", b"\n", b'data: {"tools"\n', b"data: "]
)


@given(st.lists(parts, max_size=5), st.sampled_from(DIALECTS), st.sets(st.integers(0, 900), max_size=12))
def test_however_it_is_cut_a_stream_is_filtered_alike(stream: list[bytes], end: bytes, cuts: set[int]) -> None:
    whole = b"".join(stream).replace(b"\n", end)
    sent, dropped = filter_stream(whole, cuts)
    assert (sent, dropped) == filter_stream(whole)
    assert b'"name":"secret"' not in sent
    if filter_stream(whole, view=ALL) == (whole, 0) and b"secret" not in whole:
        assert sent == whole


def test_where_no_list_was_asked_for_one_is_filtered_by_its_shape_and_all_else_passes() -> None:
    """A server that routes answers by their id alone may send a list to whoever used the same id."""
    stray = filter_answer(tools("open", "secret"), LAX)
    assert orjson.loads(stray)["result"]["tools"] == []
    for body in (b"", b"no JSON", b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"tools"}]}}'):
        assert filter_answer(body, LAX) == body
    with pytest.raises(UnfilterableAnswer):
        filter_answer(b'{"result":{"tools":[],"tools":[]}}', LAX)


def test_a_large_event_passes_where_no_list_was_asked_for_unless_it_may_hold_one() -> None:
    harmless, doubtful = b"data: " + b"x" * 200 + b"\n\n", b'data: {"tools": ["' + b"x" * 200 + b'"]}\n\n'
    for strict, kept in ((False, harmless), (True, b"")):
        sse_filter = SseFilter(ListView(allow_none, strict=strict), max_event_bytes=100)
        assert sse_filter.feed(harmless + doubtful) + sse_filter.finish() == kept
