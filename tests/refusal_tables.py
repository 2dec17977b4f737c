"""Every way of being refused, as a table: what is sent, and what must come back.

The rows of `BEFORE` never reach an upstream; in those of `AFTER` the upstream is what went wrong.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import Reason
from tests.canary_upstream import form_answer
from tests.raw_client import RawAnswer, form_chunks, form_request
from tests.staging import INITIALIZE, MODERN, MODERN_META, form_call

MAX_BODY_BYTES = 4096
"""The limit under which the table is walked."""

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
RUN = form_call("aegis.workflow.run", {"name": "nightly-etl"})
A_KEY = "aegis_0123456789ab_" + "0" * 49  # of the form of a key, for places where no key belongs
STREAM, MESSAGES = "/mcp/v1/sse", "/mcp/v1/messages"  # of HTTP+SSE
PLAIN_BEARER = 'Bearer realm="aegis"'
INVALID_TOKEN = 'Bearer realm="aegis", error="invalid_token"'
INVALID_REQUEST = 'Bearer realm="aegis", error="invalid_request"'


@dataclass(frozen=True, slots=True)
class Row:
    """`ask` forms the request of a key, whose kind is one of `test_refusals.make_key`.

    `plain`: answered as problem+json, because it was refused before the route was known. `code`: of the JSON-RPC error,
    if not our own for the status. `rpc_id`: whose answer it is. `closes`: the connection ends with the answer.
    """

    reason: Reason
    status: int
    ask: Callable[[str | None], bytes]
    key: str | None = "good"
    challenge: str | None = None
    plain: bool = False
    code: int | None = None
    rpc_id: str | int | None = None
    closes: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def check_refusal(answer: RawAnswer, row: Row) -> None:
    """Status, headers and body are those of the table."""
    assert (answer.status, answer.reason) == (row.status, row.reason)
    headers = answer.headers
    assert headers.get("WWW-Authenticate") == row.challenge
    assert headers["Content-Type"] == ("application/problem+json" if row.plain else "application/json")
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "aegis-proxy"
    assert not (set(row.headers.items()) - set(headers.items()))
    assert ("Retry-After" in headers) == (row.status == 503)
    if row.closes:
        assert headers.get("Connection") == "close" or answer.line.startswith("HTTP/1.0")
    if row.plain:
        check_problem(answer, row)
    else:
        check_rpc_error(answer, row)


def check_problem(answer: RawAnswer, row: Row) -> None:
    problem = answer.json
    assert problem["status"] == row.status
    assert problem["type"] == f"urn:aegis-proxy:problem:{row.reason}"
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert problem["title"]
    assert problem["detail"] == problem["error"] != ""


def check_rpc_error(answer: RawAnswer, row: Row) -> None:
    message = answer.json
    assert message.keys() == {"jsonrpc", "id", "error"}
    assert message["id"] == row.rpc_id
    error = message["error"]
    assert error["code"] == (row.code if row.code is not None else -(31_000 + row.status))
    assert error["message"]
    assert error["data"]["request_id"] == answer.headers["X-Request-Id"]


def post(body: object = PING, *extra: str, target: str = "/mcp/v1", **replaced: Any) -> Callable[[str | None], bytes]:
    return lambda token: form_request("POST", target, *extra, token=token, body=body, **replaced)


def go(method: str, target: str = "/mcp/v1", *extra: str, **replaced: Any) -> Callable[[str | None], bytes]:
    return lambda token: form_request(method, target, *extra, token=token, **replaced)


SPEAKS_TASKS = {
    **MODERN_META,
    "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
}


def modern(
    method: str, params: dict[str, Any], meta: dict[str, Any] = MODERN_META, **replaced: str
) -> Callable[[str | None], bytes]:
    """A request of revision 2026-07-28, with the headers that mirror it unless others are given."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, "_meta": meta}}
    mirrored = {"mcp_protocol_version": MODERN, "mcp_method": method} | replaced
    return post(body, **{name: value for name, value in mirrored.items() if value})


CREDENTIALS = {
    "no credential": Row(Reason.CREDENTIAL_MISSING, 401, post(), None, PLAIN_BEARER),
    "no credential on GET": Row(Reason.CREDENTIAL_MISSING, 401, go("GET"), None, PLAIN_BEARER),
    "no credential on DELETE": Row(Reason.CREDENTIAL_MISSING, 401, go("DELETE"), None, PLAIN_BEARER),
    "no credential by HTTP+SSE": Row(Reason.CREDENTIAL_MISSING, 401, go("GET", STREAM), None, PLAIN_BEARER),
    "no credential on a message by HTTP+SSE": Row(
        Reason.CREDENTIAL_MISSING, 401, post(target=f"{MESSAGES}?session_id=x"), None, PLAIN_BEARER
    ),
    **{
        f"malformed {number}": Row(
            Reason.CREDENTIAL_MALFORMED, 401, post(authorization=value), None, INVALID_TOKEN
        )
        for number, value in enumerate((
            "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer\tx", f"Bearer {A_KEY}", A_KEY,
            f"Bearer {A_KEY}, Bearer {A_KEY}", f"Bearer {A_KEY} x", "Bearer " + "a" * 7000, "Bearer \xe9",
        ))
    },
    "unknown id": Row(Reason.CREDENTIAL_INVALID, 401, post(), "unknown", INVALID_TOKEN),
    "wrong secret": Row(Reason.CREDENTIAL_INVALID, 401, post(), "wrong secret", INVALID_TOKEN),
    "two credentials": Row(
        Reason.CREDENTIAL_REPEATED, 400, post(PING, "Authorization: Bearer x"), challenge=INVALID_REQUEST
    ),
    "two credentials, the good one last": Row(
        Reason.CREDENTIAL_REPEATED, 400, post(PING, "authorization: Basic YTpi"), challenge=INVALID_REQUEST
    ),
    **{
        f"in the query of a {key} key: {query[:14]}": Row(
            Reason.CREDENTIAL_MISPLACED, 400, post(target=f"/mcp/v1?{query}"), key, INVALID_REQUEST
        )
        for key in ("good", None)
        for query in ("access_token=abc", "a=b&TOKEN=x", "api_key=", f"x={A_KEY}", f"{A_KEY}=1")
    },
    **{
        f"query {query}": Row(Reason.QUERY_NOT_ALLOWED, 400, post(target=f"/mcp/v1?{query}"))
        for query in ("tenant_id=other", "a=b&%74enant=other", "USER_ID=eve", "a=1&b=2&a=3", "a=1&A=2", "a&a")
    },
    "expired": Row(Reason.KEY_EXPIRED, 401, post(), "expired", INVALID_TOKEN),
    "revoked": Row(Reason.KEY_REVOKED, 401, post(), "revoked", INVALID_TOKEN),
    "disabled": Row(Reason.KEY_DISABLED, 401, post(), "disabled", INVALID_TOKEN),
    "rotated": Row(Reason.SECRET_RETIRED, 401, post(), "rotated", INVALID_TOKEN),
    "owner disabled": Row(Reason.OWNER_DISABLED, 401, post(), "of a disabled owner", INVALID_TOKEN),
}  # fmt: skip

OUTSIDE = {
    "no HTTP": Row(Reason.REQUEST_UNREADABLE, 400, lambda _: b"\x16\x03\x01\r\n\r\n", plain=True, closes=True),
    "no Host": Row(Reason.REQUEST_UNREADABLE, 400, post(without="Host"), plain=True, closes=True),
    "two lengths": Row(Reason.REQUEST_UNREADABLE, 400, post(PING, "Content-Length: 9"), plain=True, closes=True),
    "a broken chunk": Row(
        Reason.REQUEST_UNREADABLE, 400,
        lambda token: go("POST", "/mcp/v1", "Transfer-Encoding: chunked", content_type="application/json")(token)
        + b"zz\r\n", plain=True, closes=True,
    ),
    "long line": Row(Reason.HEAD_TOO_LARGE, 431, go("GET", "/" + "a" * 9000), plain=True, closes=True),
    "long field": Row(Reason.HEAD_TOO_LARGE, 431, post(PING, "X-A: " + "a" * 9000), plain=True, closes=True),
    "many fields": Row(Reason.HEAD_TOO_LARGE, 431, post(PING, *["X-A: a"] * 100), plain=True, closes=True),
    **{
        f"target {target}": Row(Reason.TARGET_NOT_CANONICAL, 400, post(target=target), plain=True, closes=True)
        for target in (
            "/mcp//v1", "/mcp/./v1", "/x/../mcp/v1", "/x/%2e%2e/mcp/v1", "/x/%2E%2E/mcp/v1", "/mcp%2Fv1", "/mcp/v1/",
            "/mcp/v1;x", "/mcp/v1#x", "/mcp\\v1", "/%6Dcp/v1", "/%256Dcp/v1", "/mcp/v1%00", "/mcp/v1%C0%AF",
            "http://localhost/mcp/v1", "//localhost/mcp/v1", "/mcp/v1?a=%zz",
        )
    },
    **{
        f"nothing at {target}": Row(Reason.ROUTE_UNKNOWN, 404, go(method, target), key, plain=True)
        for key, method, target in (
            ("good", "POST", "/mcp"), ("good", "POST", "/mcp/V1"), ("good", "GET", "/healthz"),
            # What MCP clients look for after a 401: anything but a plain 404 makes them start OAuth and drop the key.
            (None, "GET", "/.well-known/oauth-protected-resource"),
            (None, "GET", "/.well-known/oauth-protected-resource/mcp/v1"),
            (None, "GET", "/.well-known/oauth-authorization-server"),
            (None, "GET", "/.well-known/openid-configuration"),
            (None, "POST", "/register"), (None, "GET", "/authorize"), (None, "POST", "/token"),
        )
    },
    **{
        f"{method} not allowed": Row(
            Reason.METHOD_NOT_ALLOWED, 405, go(method), None, headers={"Allow": "DELETE, GET, POST"}
        )
        for method in ("PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND")
    },
    **{
        f"{method} not allowed on {path}": Row(
            Reason.METHOD_NOT_ALLOWED, 405, go(method, path), None, headers={"Allow": allowed}
        )
        for path, allowed, methods in ((STREAM, "GET", ("POST", "DELETE")), (MESSAGES, "POST", ("GET", "DELETE")))
        for method in methods
    },
    **{
        f"Host {host}": Row(Reason.HOST_NOT_ALLOWED, 421, post(host=host), plain=True)
        for host in ("evil.example", "localhost.", "localhost.evil.example", "127.0.0.2", "[::2]:80")
    },
    **{
        f"malformed Host {host}": Row(Reason.HEADER_INVALID, 400, post(host=host), plain=True, closes=True)
        for host in ("", "a b", "localhost:", "localhost:x", "localhost@evil", "[::1", "localhost/")
    },
    **{
        f"Origin {origin}": Row(Reason.ORIGIN_NOT_ALLOWED, 403, post(origin=origin))
        for origin in ("https://evil.example", "null", "http://localhost:1", "")
    },
    "obs-text in a header we use": Row(
        Reason.HEADER_INVALID, 400, post(mcp_session_id="\xe9"), plain=True, closes=True
    ),
    "two Content-Types": Row(
        Reason.REQUEST_UNREADABLE, 400, post(PING, "Content-Type: text/plain"), plain=True, closes=True
    ),
    "two origins": Row(
        Reason.HEADER_REPEATED, 400, post(PING, "Origin: a", origin="a"), plain=True, closes=True
    ),
    "two sessions": Row(
        Reason.HEADER_REPEATED, 400, post(PING, "Mcp-Session-Id: b", mcp_session_id="a"), plain=True, closes=True
    ),
    **{
        version: Row(Reason.HTTP_VERSION_UNSUPPORTED, 505, post(version=version), plain=True, closes=True)
        for version in ("HTTP/0.9", "HTTP/2.0")
    },
    "gzip under chunked": Row(
        Reason.TRANSFER_ENCODING_UNSUPPORTED, 501,
        lambda token: go("POST", "/mcp/v1", "Transfer-Encoding: gzip, chunked", content_type="application/json")(token)
        + form_chunks(gzip.compress(b"{}")), plain=True, closes=True,
    ),
    "another expectation": Row(Reason.EXPECTATION_FAILED, 417, post(expect="200-ok"), plain=True, closes=True),
}  # fmt: skip

BODIES = {
    **{
        f"Content-Type {kind}": Row(Reason.CONTENT_TYPE_UNSUPPORTED, 415, post(content_type=kind))
        for kind in (
            "", "Application/JSON", "text/plain", "text/plain, application/json", "application/json, text/plain",
            "application/json;charset=utf-16", "application/json; charset=utf-8; x=y", "application/jsonx",
            "application/json-rpc", "application/x-www-form-urlencoded",
        )
    },
    "no Content-Type": Row(Reason.CONTENT_TYPE_UNSUPPORTED, 415, post(without="Content-Type")),
    **{
        f"Content-Encoding {coding}": Row(
            Reason.CONTENT_ENCODING_UNSUPPORTED, 415,
            post(gzip.compress(json.dumps(PING).encode()), content_encoding=coding), plain=True,
        )
        for coding in ("gzip", "GZIP", "br", "deflate", "zstd", "foo, gzip", "identity, gzip", "gzip, gzip", "")
    },
    **{
        f"{method} with a body": Row(Reason.BODY_UNEXPECTED, 400, ask, closes=True)
        for method, ask in {
            "GET": go("GET", body=PING), "DELETE": go("DELETE", body=PING),
            "chunked GET": lambda token: go("GET", "/mcp/v1", "Transfer-Encoding: chunked")(token) + form_chunks(b"{}"),
        }.items()
    },
    "too large": Row(Reason.BODY_TOO_LARGE, 413, post(b" " * MAX_BODY_BYTES + b"{}"), closes=True),
    "too large, said only": Row(Reason.BODY_TOO_LARGE, 413, post(content_length="999999999999"), closes=True),
    "too large, in chunks": Row(
        Reason.BODY_TOO_LARGE, 413,
        lambda token: go("POST", "/mcp/v1", "Transfer-Encoding: chunked", content_type="application/json")(token)
        + form_chunks(*[b" " * 512] * 9), closes=True,
    ),
    "too slow": Row(Reason.BODY_TIMEOUT, 408, post(content_length="100"), closes=True),
    **{
        f"not strict JSON {number}": Row(Reason.MESSAGE_UNREADABLE, 400, post(body), code=-32700)
        for number, body in enumerate((
            b"", b"{", b"nonsense", b'{"jsonrpc":"2.0","id":1,"method":"ping"}x',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","m\\u0065thod":"tools/call"}',
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"aegis.runtime.list","name":"b"}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":-Infinity}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":1e999}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\\ud800"}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xff"}}',
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\xc0\xaf"}}',
            b"\xef\xbb\xbf" + json.dumps(PING).encode(),
            json.dumps(PING).encode("utf-16"), json.dumps(PING).encode("utf-32"),
            b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 64 + b"1" + b"}" * 65,
            b"[" * 1500 + b"]" * 1500,
        ))
    },
    **{
        f"not one message {number}": Row(
            Reason.MESSAGE_INVALID, 400, post(message), code=-32600, rpc_id=rpc_id
        )
        for number, (rpc_id, message) in enumerate((
            (None, []), (None, [PING]), (None, [[PING]]), (None, [PING] * 50), (None, 1), (None, "ping"), (None, {}),
            (1, {**PING, "jsonrpc": "1.0"}), (1, {"id": 1, "method": "ping"}), (1, {**PING, "Method": "tools/call"}),
            (1, {**RUN, "params": {**RUN["params"], "Name": "aegis.runtime.list"}}), (1, {**PING, "params": [1]}),
            (1, {**PING, "method": 1}), (1, {**PING, "result": {}}), (None, {**PING, "id": None}),
            (None, {**PING, "id": True}), (None, {**PING, "id": 1.5}), (None, {**PING, "id": 2**53}),
            (None, {**PING, "id": "x" * 129}), (None, {"jsonrpc": "2.0", "id": 1}),
        ))
    },
    "a call of what is no name": Row(
        Reason.PARAMS_INVALID, 400,
        post({**PING, "method": "tools/call", "params": {"name": "aegis.runtime.liſt"}}), code=-32602, rpc_id=1,
    ),
    "a response without a session": Row(
        Reason.MESSAGE_INVALID, 400, post({"jsonrpc": "2.0", "id": 1, "result": {}}), code=-32600
    ),
    **{
        f"mismatch: {name}": Row(Reason.HEADER_MISMATCH, 400, ask, code=-32020, rpc_id=7)
        for name, ask in {
            "no headers": modern("tools/list", {}, mcp_protocol_version="", mcp_method=""),
            "another version": modern("tools/list", {}, mcp_protocol_version="2025-11-25"),
            "another method": modern("tools/list", {}, mcp_method="tools/call"),
            "another name": modern("tools/call", {"name": "aegis.runtime.list"}, mcp_name="aegis.system.info"),
            "no name": modern("tools/call", {"name": "aegis.runtime.list"}),
        }.items()
    },
    "a modern header on a legacy body": Row(
        Reason.PARAMS_INVALID, 400, post(mcp_protocol_version=MODERN), code=-32602, rpc_id=1
    ),
}  # fmt: skip

DECISIONS = {
    "a denied tool": Row(Reason.MESSAGE_DENIED, 200, post(RUN), "read-only", rpc_id=1, code=-31403),
    "a tool no rule names": Row(
        Reason.MESSAGE_DENIED, 200, post(form_call("aegis.no.such")), "full-access", rpc_id=1, code=-31403
    ),
    "a denied notification": Row(
        Reason.MESSAGE_DENIED, 403, post({key: RUN[key] for key in ("jsonrpc", "method", "params")}), "read-only",
        'Bearer realm="aegis", error="insufficient_scope", scope="workflow:run:nightly-etl"',
    ),
    "an unknown method": Row(
        Reason.METHOD_UNKNOWN, 200, post({**PING, "method": "no/such"}), code=-32601, rpc_id=1
    ),
    "an unknown method, modern": Row(Reason.METHOD_UNKNOWN, 404, modern("no/such", {}), code=-32601, rpc_id=7),
    "a task without its extension, modern": Row(
        Reason.CAPABILITY_MISSING, 400, modern("tasks/get", {"taskId": "t"}, mcp_name="t"), code=-32021, rpc_id=7
    ),
    "an unknown task": Row(
        Reason.HANDLE_UNKNOWN, 200,
        post({**PING, "method": "tasks/get", "params": {"taskId": "nobody's"}}), code=-32602, rpc_id=1,
    ),
    "an unknown task, modern": Row(
        Reason.HANDLE_UNKNOWN, 400,
        modern("tasks/get", {"taskId": "nobody's"}, SPEAKS_TASKS, mcp_name="nobody's"), code=-32602, rpc_id=7,
    ),
    "a state that nobody sealed": Row(
        Reason.HANDLE_UNKNOWN, 400,
        modern("tools/call", {"name": "aegis.runtime.list", "requestState": "x"}, mcp_name="aegis.runtime.list"),
        code=-32602, rpc_id=7,
    ),
    "a modern request for what its revision has no more": Row(
        Reason.METHOD_UNKNOWN, 404, modern("resources/subscribe", {}), code=-32601, rpc_id=7
    ),
    **{
        f"by HTTP+SSE, the session {member}": Row(Reason.SESSION_UNKNOWN, 404, post(target=f"{MESSAGES}?{member}"))
        for member in ("session_id=", "session_id=nobody", "session_id=" + "A" * 60, "session_id=a%20b")
    },
    **{
        f"by HTTP+SSE, the query {query}": Row(
            Reason.QUERY_NOT_ALLOWED, 400, post(target=f"{MESSAGES}{query}")
        )
        for query in ("", "?a=b", "?session_id=x&a=b", "?a=b&session_id=x", "?sessionId=x")
    },
    "by HTTP+SSE, a GET with a body": Row(Reason.BODY_UNEXPECTED, 400, go("GET", STREAM, body=PING), closes=True),
    "an unknown notification": Row(
        Reason.METHOD_UNKNOWN, 403, post({"jsonrpc": "2.0", "method": "no/such"}), code=-32601
    ),
    **{
        f"unknown session on {name}": Row(Reason.SESSION_UNKNOWN, 404, ask, rpc_id=rpc_id)
        for name, rpc_id, ask in (
            ("POST", 1, post(mcp_session_id="nobody's")), ("GET", None, go("GET", mcp_session_id="nobody's")),
            ("DELETE", None, go("DELETE", mcp_session_id="nobody's")),
            ("POST, too long", 1, post(mcp_session_id="x" * 257)), ("POST, empty", 1, post(mcp_session_id="")),
            ("POST, of two words", 1, post(mcp_session_id="a b")),
            ("a response", None, post({"jsonrpc": "2.0", "id": 1, "result": {}}, mcp_session_id="nobody's")),
        )
    },
}  # fmt: skip

BEFORE = {"credentials": CREDENTIALS, "outside": OUTSIDE, "bodies": BODIES, "decisions": DECISIONS}


@dataclass(frozen=True, slots=True)
class UpstreamRow:
    """`answer`: what the upstream says to whatever it is asked; b"" for silence."""

    reason: Reason
    status: int
    answer: bytes
    ask: Callable[[str | None], bytes] = field(default=post())


INTERNALS = "internals-of-the-upstream"
_LEAKY = (f"WWW-Authenticate: Bearer resource_metadata={INTERNALS}", f"Set-Cookie: a={INTERNALS}",
          f"Server: {INTERNALS}", f"Location: http://{INTERNALS}/", f"X-Powered-By: {INTERNALS}")  # fmt: skip
_BODY = json.dumps({"error": INTERNALS}).encode()
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}

AFTER = {
    **{
        f"it answers {status}": UpstreamRow(reason, 502, form_answer(_BODY, *_LEAKY, status=f"{status} {INTERNALS}"))
        for statuses, reason in (
            ((401, 403, 407), Reason.UPSTREAM_CREDENTIAL), ((301, 302, 303, 304, 307, 308), Reason.UPSTREAM_REDIRECT),
        )
        for status in statuses
    },
    "it is silent": UpstreamRow(Reason.UPSTREAM_TIMEOUT, 504, b""),
    "it stops in the head": UpstreamRow(Reason.UPSTREAM_TIMEOUT, 504, f"HTTP/1.1 200 OK\r\nX-A: {INTERNALS}".encode()),
    "it talks garbage": UpstreamRow(Reason.UPSTREAM_PROTOCOL, 502, f"{INTERNALS}\r\n\r\n".encode()),
    "it frames twice": UpstreamRow(
        Reason.UPSTREAM_PROTOCOL, 502, form_answer(_BODY, "Transfer-Encoding: chunked", *_LEAKY)
    ),
    "it switches protocols": UpstreamRow(
        Reason.UPSTREAM_PROTOCOL, 502, b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    ),
    "its list is no JSON": UpstreamRow(
        Reason.UPSTREAM_PROTOCOL, 502, form_answer(INTERNALS.encode(), *_LEAKY), post(LIST)
    ),
    "its list is too large": UpstreamRow(
        Reason.UPSTREAM_ANSWER_TOO_LARGE, 502, form_answer(INTERNALS.encode() * 20_000, *_LEAKY), post(LIST)
    ),
    "it names two sessions": UpstreamRow(
        Reason.UPSTREAM_PROTOCOL, 502, form_answer(b"{}", "Mcp-Session-Id: a", "Mcp-Session-Id: b"), post(INITIALIZE)
    ),
}  # fmt: skip
