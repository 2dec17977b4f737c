"""How do we say no? One table: a reason's status, headers and body.  [pure]

In goes a Refusal and how the client speaks, out comes a complete answer. This is the only room that knows the
status numbers of refusals. Bodies are RFC 9457 problems with an `error` member for the platform's SDKs; on MCP routes
JSON-RPC errors, because that is what MCP clients show to their users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.errors import Reason, Refusal
from proxy.headers import SAFETY, SERVER

# What stands in a quoted string as it is (RFC 9110 section 5.6.4), in a length that no other header would pass.
_QUOTABLE = re.compile(r"[ !#-\[\]-~]{1,1024}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Row:
    """`challenge`: the error code of `WWW-Authenticate: Bearer` (RFC 6750 section 3.1), "" for none; None: no header.

    `close`: what follows on the connection cannot be trusted to be the next request.
    """

    status: int
    title: str
    challenge: str | None = None
    rpc_code: int | None = None
    close: bool = False


TABLE: dict[Reason, Row] = {
    # RFC 6750 section 3: a request without any credential gets a challenge without an error code.
    Reason.CREDENTIAL_MISSING: Row(401, "API key required", ""),
    Reason.CREDENTIAL_MALFORMED: Row(401, "Invalid API key", "invalid_token"),
    Reason.CREDENTIAL_INVALID: Row(401, "Invalid API key", "invalid_token"),
    Reason.CREDENTIAL_REPEATED: Row(400, "More than one credential", "invalid_request"),
    Reason.CREDENTIAL_MISPLACED: Row(400, "API key in the URL", "invalid_request"),
    Reason.KEY_EXPIRED: Row(401, "API key expired", "invalid_token"),
    Reason.KEY_REVOKED: Row(401, "API key revoked", "invalid_token"),
    Reason.KEY_DISABLED: Row(401, "API key disabled", "invalid_token"),
    Reason.SECRET_RETIRED: Row(401, "API key rotated", "invalid_token"),
    Reason.OWNER_DISABLED: Row(401, "Account disabled", "invalid_token"),
    # RFC 6585 section 4. Closed, so that the next attempt passes by the porch, where it costs a tenth.
    Reason.TOO_MANY_FAILURES: Row(429, "Too many invalid API keys", close=True),
    Reason.TOKEN_INVALID: Row(401, "Invalid token", "invalid_token"),
    Reason.TOKEN_EXPIRED: Row(401, "Token expired", "invalid_token"),
    Reason.REQUEST_UNREADABLE: Row(400, "Not readable as HTTP", close=True),
    Reason.HEAD_TOO_LARGE: Row(431, "Request head too large", close=True),
    Reason.TARGET_NOT_CANONICAL: Row(400, "Ambiguous request target", close=True),
    Reason.ROUTE_UNKNOWN: Row(404, "Not found"),
    Reason.METHOD_NOT_ALLOWED: Row(405, "Method not allowed"),
    Reason.HOST_NOT_ALLOWED: Row(421, "Host not served here"),
    Reason.ORIGIN_NOT_ALLOWED: Row(403, "Origin not allowed"),
    Reason.HEADER_INVALID: Row(400, "Invalid header", close=True),
    Reason.HEADER_REPEATED: Row(400, "Repeated header", close=True),
    Reason.HEADER_MISMATCH: Row(400, "Header and body disagree", rpc_code=-32020),  # MCP 2026-07-28, HeaderMismatch
    Reason.QUERY_NOT_ALLOWED: Row(400, "Query member not allowed"),
    Reason.HTTP_VERSION_UNSUPPORTED: Row(505, "HTTP version not supported", close=True),
    Reason.TRANSFER_ENCODING_UNSUPPORTED: Row(501, "Transfer coding not supported", close=True),
    Reason.EXPECTATION_FAILED: Row(417, "Expectation not supported", close=True),
    Reason.CONTENT_TYPE_UNSUPPORTED: Row(415, "Content type not supported"),
    Reason.CONTENT_ENCODING_UNSUPPORTED: Row(415, "Content coding not supported"),
    Reason.BODY_TOO_LARGE: Row(413, "Body too large", close=True),
    Reason.BODY_UNEXPECTED: Row(400, "Body not expected", close=True),
    Reason.BODY_TIMEOUT: Row(408, "Body came too slowly", close=True),
    Reason.MESSAGE_UNREADABLE: Row(400, "Not strict JSON", rpc_code=-32700),
    Reason.MESSAGE_INVALID: Row(400, "Not one JSON-RPC message", rpc_code=-32600),
    Reason.PARAMS_INVALID: Row(400, "Invalid params", rpc_code=-32602),
    Reason.CAPABILITY_MISSING: Row(400, "Client capability missing", rpc_code=-32021),  # MCP 2026-07-28
    Reason.ROUTE_DENIED: Row(403, "Not allowed for this key", "insufficient_scope"),
    Reason.MESSAGE_DENIED: Row(403, "Not allowed for this key", "insufficient_scope"),
    Reason.METHOD_UNKNOWN: Row(404, "Unknown method", rpc_code=-32601),
    Reason.RIGHTS_CHANGED: Row(403, "The key's rights changed", "insufficient_scope"),
    Reason.HANDLE_UNKNOWN: Row(400, "Handle not found", rpc_code=-32602),  # as the SDKs' servers answer
    Reason.SESSION_UNKNOWN: Row(404, "Session not found"),
    Reason.INPUT_INVALID: Row(422, "Not what this endpoint takes"),
    Reason.SCOPE_MISSING: Row(403, "Not allowed for this caller", "insufficient_scope"),
    Reason.RIGHTS_EXCEEDED: Row(403, "More than this caller holds", "insufficient_scope"),
    Reason.EXPIRY_EXCEEDED: Row(403, "Later than this caller's end"),
    Reason.CONSTRAINTS_EXCEEDED: Row(403, "Less constrained than this caller"),
    Reason.NOT_A_DESCENDANT: Row(403, "Not made by this key"),
    Reason.NOT_THE_OWNER: Row(403, "Another owner's key"),
    Reason.TOO_MANY_GENERATIONS: Row(403, "Too many generations of keys"),
    Reason.ROLE_MISSING: Row(403, "For admins of the tenant"),
    Reason.OWNER_UNKNOWN: Row(403, "Account unknown"),
    Reason.TENANT_MISMATCH: Row(403, "Account of another tenant"),
    Reason.KEY_NOT_FOUND: Row(404, "API key not found"),
    Reason.OWNER_NOT_FOUND: Row(404, "Owner not found"),
    Reason.KEY_CONFLICT: Row(409, "Contradicts what is stored"),
    Reason.KEY_CHANGED: Row(412, "Changed since it was read"),
    # No challenge: another credential is not what is asked for, and editors start OAuth on `insufficient_scope`.
    Reason.ADDRESS_NOT_ALLOWED: Row(403, "Address not allowed for this key"),
    # RFC 6585 section 4. MCP clients survive it: the SDKs fail this one request and keep the session, the one in Python
    # with the words of the body, where nobody else sees Retry-After.
    Reason.RATE_EXCEEDED: Row(429, "Too many requests of this key"),
    Reason.CALLS_EXCEEDED: Row(429, "Too many calls of this key"),
    Reason.STREAMS_EXCEEDED: Row(429, "Too many streams of this key"),
    # Never 401 or 403 for what we cannot know: clients throw keys away on those.
    Reason.TOO_MANY_CONNECTIONS: Row(503, "Too many connections", close=True),
    Reason.HASHING_BUSY: Row(503, "Busy"),
    Reason.STATE_UNKNOWN: Row(503, "Key state unknown"),
    Reason.DATABASE_SILENT: Row(503, "Key database silent"),
    Reason.PROVIDER_UNREACHABLE: Row(503, "Identity provider unreachable"),
    Reason.DRAINING: Row(503, "Shutting down", close=True),
    Reason.INTERNAL: Row(503, "A check failed"),
    Reason.UPSTREAM_UNREACHABLE: Row(502, "Upstream unreachable"),
    Reason.UPSTREAM_TIMEOUT: Row(504, "Upstream timed out"),
    Reason.UPSTREAM_PROTOCOL: Row(502, "Upstream broke the protocol"),
    Reason.UPSTREAM_CREDENTIAL: Row(502, "Upstream refused the proxy"),
    Reason.UPSTREAM_ANSWER_TOO_LARGE: Row(502, "Upstream answer too large"),
    Reason.UPSTREAM_SESSION_CONFLICT: Row(502, "Upstream session conflict"),
    Reason.UPSTREAM_REDIRECT: Row(502, "Upstream redirected"),
}


_DENIALS = frozenset({Reason.MESSAGE_DENIED, Reason.RIGHTS_CHANGED})
_JUDGEMENTS = _DENIALS | {Reason.METHOD_UNKNOWN, Reason.HANDLE_UNKNOWN}
# What a server would answer in JSON-RPC; everything else is refused in HTTP.
_ANSWERS = _JUDGEMENTS | {Reason.PARAMS_INVALID, Reason.CAPABILITY_MISSING}
_LIMITS = frozenset({Reason.RATE_EXCEEDED, Reason.CALLS_EXCEEDED})
# By HTTP+SSE: a message that is answered 429 is the last one the SDK in Python ever sends (its writer falls over).
_TOLD_APART = _ANSWERS | _LIMITS


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the client speaks: JSON-RPC on MCP routes; `modern`: revision 2026-07-28; `rpc_denials` as the route says;
    `apart`: by HTTP+SSE, where the answer to a message comes on the session's stream."""

    json_rpc: bool
    modern: bool = False
    rpc_denials: str = "json-rpc"
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete refusal, ready to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    close: bool


def form_answer(
    refusal: Refusal, dialect: Dialect, *, realm: str, request_id: str, metadata_url: str | None = None
) -> Answer:
    """The answer to a refused request. `metadata_url`: where RFC 9728 metadata is, if there is any."""
    row = TABLE[refusal.reason]
    status = _settle_status(refusal, row, dialect)
    headers = {
        "Content-Type": "application/json" if dialect.json_rpc else "application/problem+json",
        "Cache-Control": "no-store",
        "X-Request-Id": request_id,
        **dict((*SAFETY, SERVER)),
    }
    if row.challenge is not None and status != 200:
        headers["WWW-Authenticate"] = _form_challenge(row.challenge, refusal, realm, metadata_url)
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.reason is Reason.METHOD_NOT_ALLOWED and refusal.data:
        headers["Allow"] = ", ".join(refusal.data["allow"])
    body = form_rpc_error(refusal, request_id) if dialect.json_rpc else form_problem(refusal, request_id)
    return Answer(status, headers, body, row.close)


def get_title(reason: Reason) -> str:
    """What kind of refusal it is, in a few words."""
    return TABLE[reason].title


def is_told_apart(refusal: Refusal, dialect: Dialect) -> bool:
    """Whether the client waits for this on its stream: there is an id to answer, and the refusal is of the message
    alone."""
    by_status = dialect.rpc_denials == "http-403" and refusal.reason in _DENIALS
    return dialect.apart and refusal.rpc_id is not None and refusal.reason in _TOLD_APART and not by_status


def form_acknowledgement(request_id: str) -> Answer:
    """The answer to a refused message whose refusal is told on its stream."""
    headers = {"Cache-Control": "no-store", "X-Request-Id": request_id, **dict((*SAFETY, SERVER))}
    return Answer(202, headers, b"", close=False)


def form_rpc_error(refusal: Refusal, request_id: str) -> bytes:
    """The refusal as a JSON-RPC error answer. Codes of our own lie outside -32768 to -32000, which are reserved."""
    row = TABLE[refusal.reason]
    code = row.rpc_code if row.rpc_code is not None else -(31_000 + row.status)
    explanation = {"reason": refusal.reason, "request_id": request_id, **_find_members(refusal)}
    error = {"code": code, "message": refusal.detail, "data": explanation}
    return orjson.dumps({"jsonrpc": "2.0", "id": refusal.rpc_id, "error": error})


def _settle_status(refusal: Refusal, row: Row, dialect: Dialect) -> int:
    """A denied JSON-RPC request is answered in JSON-RPC, with 200: a static key cannot step up, and editors answer 401
    and 403 alike by starting OAuth and dropping the key. A message without an id has no answer to carry the no."""
    answerable = dialect.json_rpc and refusal.rpc_id is not None
    if dialect.apart and refusal.reason in _JUDGEMENTS:
        return 403  # nobody reads this body as an answer, and any 2xx would promise one
    if refusal.reason in _DENIALS and answerable:
        return 200 if dialect.rpc_denials == "json-rpc" else 403
    if refusal.reason is Reason.HANDLE_UNKNOWN and answerable and not dialect.modern:
        return 200  # before 2026-07-28 editors take 400 for the end of their session
    if refusal.reason is Reason.METHOD_UNKNOWN and dialect.json_rpc:
        if not answerable:
            return 403
        return 404 if dialect.modern else 200
    return row.status


def _form_challenge(error: str, refusal: Refusal, realm: str, metadata_url: str | None) -> str:
    """`resource_metadata` only where there is some: it makes editors start OAuth and drop a static key."""
    parameters = [f'realm="{realm}"']
    if error:
        parameters.append(f'error="{error}"')
    missing = " ".join((refusal.data or {}).get("missing", ()))
    if error == "insufficient_scope" and _QUOTABLE.fullmatch(missing):
        parameters.append(f'scope="{missing}"')
    if metadata_url is not None:
        parameters.append(f'resource_metadata="{metadata_url}"')
    return "Bearer " + ", ".join(parameters)


def form_problem(refusal: Refusal, request_id: str) -> bytes:
    """The refusal as RFC 9457 has it, and with the member `error` that the platform's clients show."""
    row = TABLE[refusal.reason]
    problem: dict[str, Any] = {
        "type": f"urn:aegis-proxy:problem:{refusal.reason}",
        "title": row.title,
        "status": row.status,
        "detail": refusal.detail,
        "code": refusal.reason,
        "request_id": request_id,
        "error": refusal.detail,
    }
    return orjson.dumps(problem | _find_members(refusal))


def _find_members(refusal: Refusal) -> dict[str, Any]:
    """What explains it. Whoever calls by way of an SDK sees the body, and no header."""
    after = refusal.retry_after_seconds
    return {**({} if after is None else {"retry_after_seconds": after}), **(refusal.data or {})}
