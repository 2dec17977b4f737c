"""What was sent to the management API, and what goes back: the only part of it that knows HTTP.  [io]

In goes a request whose target, framing and host have been judged, out comes a whole answer, or a Refusal. Nothing is
read of a body before its sender is known, and nothing is done before all of it has been judged: JSON that two readers
could take differently, unknown members and unknown words of the query are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from proxy.credentials import PresentedCredential, PresentedText, require_either
from proxy.envelope import Target, check_json_content_type, parse_query
from proxy.errors import DatabaseError, Reason, RequestError, RowRefusedError, UnavailableError
from proxy.headers import SAFETY, SERVER
from proxy.keys.changes import KeyVersionError
from proxy.keys.lines import Lines
from proxy.keys.minting import MintError
from proxy.keys.owners import OwnerNotFoundError
from proxy.keys.rights import Caller, CallerError, RightsError
from proxy.keys.store import KeyConflictError, KeyNotFoundError
from proxy.logs import get_logger
from proxy.management.answers import ANSWERS, Call, Outcome
from proxy.management.callers import Callers
from proxy.management.endpoints import Endpoint, find_endpoints, get_endpoint
from proxy.management.faults import (
    refuse_caller,
    refuse_conflict,
    refuse_cursor,
    refuse_input,
    refuse_missing_key,
    refuse_missing_owner,
    refuse_rights,
    refuse_shape,
    refuse_stale,
)
from proxy.management.idempotency import Once, OtherRequestError
from proxy.management.operations import Operations
from proxy.management.paging import CursorError
from proxy.management.preconditions import read_version, read_word
from proxy.messages import MAX_DEPTH, decode_json
from proxy.policy.reserved import is_reserved
from proxy.recording import MANAGEMENT, Passage, Recorder
from proxy.request_body import BodyLimits, read_body

log = get_logger("management")

MAX_BODY_BYTES: Final = 64 * 1024  # 256 scopes with long selectors come to as much; nothing else that is sent does


class Management:
    """`document`: the OpenAPI document, as it is served; `at_once`: requests of one caller that are worked on together,
    while its others wait in line."""

    def __init__(
        self, *, operations: Operations, callers: Callers, recorder: Recorder, bodies: BodyLimits, document: bytes,
        at_once: int,
    ) -> None:  # fmt: skip
        self._operations = operations
        self._callers = callers
        self._recorder = recorder
        self._bodies = replace(bodies, max_body_bytes=MAX_BODY_BYTES)
        self._document = document
        self._lines = Lines(at_once)
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def serves(self, path: str) -> bool:
        """Whether a path is this room's to answer, with a refusal at least."""
        return is_reserved(path)

    async def serve(
        self, request: web.BaseRequest, target: Target, passage: Passage, signed_in: Caller | None = None
    ) -> web.Response:
        """Answer one request: of whoever signed in at the page, or else of its credential. Raises Refusal."""
        endpoint, variables = _find_endpoint(request.method, target.path)
        passage.endpoint = endpoint.name
        with self._count():
            return await self._answer(endpoint, variables, request, target, passage, signed_in)

    async def ask(
        self,
        name: str,
        caller: Caller,
        passage: Passage,
        *,
        key_id: str = "",
        members: Mapping[str, str] = MappingProxyType({}),
    ) -> BaseModel:
        """What an endpoint without a body answers this caller; `members`: of its query. Raises Refusal."""
        endpoint = get_endpoint(name)
        passage.endpoint = name
        query = _read_query(endpoint, Target("", urlencode(members), ""))
        with self._count():
            try:
                return (await self._perform(endpoint, Call(caller, key_id, query, None), passage)).result
            except DatabaseError as error:
                raise _refuse_database(error, passage) from error

    @contextmanager
    def _count(self) -> Iterator[None]:
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request is under way: a change that was begun is answered."""
        await self._idle.wait()

    async def _answer(
        self,
        endpoint: Endpoint,
        variables: Mapping[str, str],
        request: web.BaseRequest,
        target: Target,
        passage: Passage,
        signed_in: Caller | None,
    ) -> web.Response:
        if endpoint.asker == "nobody":
            _check_no_body(request)
            _read_query(endpoint, target)
            return web.Response(body=self._document, headers=_form_headers(passage))
        presented = signed_in or require_either(request.headers, target.query)
        passage.key_id = presented.key_id
        query = _read_query(endpoint, target)
        try:
            caller = await self._find_caller(presented, passage)
            passage.key_id = caller.key_id
            if caller.key_id is not None:
                self._recorder.note_end(passage, caller.key_id, caller.ends_at)
            raw, body = await self._read_body(endpoint, request)
            version = read_version(request.headers) if endpoint.conditional else None
            once = _read_once(endpoint, request, target, raw)
            call = Call(caller, variables.get("id", ""), query, body, version, once)
            outcome = await self._perform(endpoint, call, passage)
        except DatabaseError as error:
            raise _refuse_database(error, passage) from error
        headers = _form_headers(passage) | dict(outcome.headers)
        return web.Response(status=outcome.status, body=outcome.result.model_dump_json().encode(), headers=headers)

    async def _find_caller(self, presented: PresentedCredential | PresentedText | Caller, passage: Passage) -> Caller:
        if isinstance(presented, Caller):
            return presented
        return await self._callers.find(presented, passage.address)

    async def _perform(self, endpoint: Endpoint, call: Call, passage: Passage) -> Outcome:
        """What `keys` says no with, in the words of a refusal. A revocation does not wait behind what its caller reads,
        nor behind others' receipts."""
        line = nullcontext() if endpoint.name == "revoke_api_key" else self._lines.find(call.caller.actor)
        try:
            async with line:
                outcome = await ANSWERS[endpoint.name](self._operations, call)
        except RightsError as error:
            denial = refuse_rights(error, f"{MANAGEMENT}/{endpoint.name}")
            self._recorder.note_management(passage, call.caller, error.missing, denial)
            raise denial from error
        except CallerError as error:
            raise refuse_caller(error) from error
        except MintError as error:
            raise refuse_input([(error.field or "body", str(error))]) from error
        except CursorError as error:
            raise refuse_cursor() from error
        except OtherRequestError as error:
            raise refuse_input([("Idempotency-Key", str(error))]) from error
        except OwnerNotFoundError as error:
            raise refuse_missing_owner() from error
        except KeyNotFoundError as error:
            raise refuse_missing_key() from error
        except KeyVersionError as error:
            raise refuse_stale() from error
        except KeyConflictError as error:
            raise refuse_conflict(str(error)) from error
        self._recorder.note_management(passage, call.caller, [] if endpoint.scope is None else [endpoint.scope])
        return outcome

    async def _read_body(self, endpoint: Endpoint, request: web.BaseRequest) -> tuple[bytes, BaseModel | None]:
        """As it came, and as the endpoint takes it."""
        if endpoint.body is None or (endpoint.body_optional and not request.body_exists):
            _check_no_body(request)
            return b"", None if endpoint.body is None else endpoint.body()
        check_json_content_type(request.headers)
        body = await read_body(request, self._bodies)
        value, canonical = decode_json(body, max_depth=MAX_DEPTH)
        if canonical is not body and not endpoint.verbatim:
            value = orjson.loads(body)  # where 1e2 is opaque in `value`, and a number to us
        try:
            return body, endpoint.body.model_validate(value)
        except ValidationError as error:
            raise refuse_shape(error) from None


def _find_endpoint(method: str, path: str) -> tuple[Endpoint, Mapping[str, str]]:
    """Raises RequestError."""
    found = find_endpoints(path)
    if found is None:
        raise RequestError(Reason.ROUTE_UNKNOWN, "Nothing is served at this path.")
    methods, variables = found
    if method not in methods:
        allowed = sorted(methods)
        raise RequestError(Reason.METHOD_NOT_ALLOWED, f"This path takes {', '.join(allowed)}.", data={"allow": allowed})
    return methods[method], variables


def _check_no_body(request: web.BaseRequest) -> None:
    if request.body_exists:
        raise RequestError(Reason.BODY_UNEXPECTED, f"A {request.method} request here has no body.")


def _read_query(endpoint: Endpoint, target: Target) -> BaseModel | None:
    """Raises RequestError."""
    known = frozenset(endpoint.query.model_fields) if endpoint.query is not None else frozenset[str]()
    members: Mapping[str, Any] = parse_query(target.query, known)
    unknown = next((name for name in members if name not in known), None)
    if unknown is not None:
        detail = f"This endpoint takes {', '.join(sorted(known))} in its query, and nothing else."
        raise RequestError(Reason.QUERY_NOT_ALLOWED, detail if known else "This endpoint takes no query.")
    if endpoint.query is None:
        return None
    try:
        return endpoint.query.model_validate(dict(members))
    except ValidationError as error:
        raise refuse_shape(error) from None


def _read_once(endpoint: Endpoint, request: web.BaseRequest, target: Target, body: bytes) -> Once | None:
    """The word for this request, if it has one. Raises RequestError."""
    word = read_word(request.headers) if endpoint.idempotent else None
    if word is None:
        return None
    return Once(word, sha256(f"{request.method} {target.text}\n".encode() + body).digest())


def _refuse_database(error: DatabaseError, passage: Passage) -> RequestError | UnavailableError:
    """What contradicts a constraint of the tables is the request's fault; all else is the database's."""
    log.warning("management_failed", request_id=passage.request_id, endpoint=passage.endpoint, error=str(error))
    if isinstance(error, RowRefusedError):
        return refuse_conflict("What is stored does not allow this change")
    detail = "The key database does not answer right now."
    return UnavailableError(Reason.DATABASE_SILENT, detail, retry_after_seconds=2)


def _form_headers(passage: Passage) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Request-Id": passage.request_id,
        **dict((*SAFETY, SERVER, *passage.warnings)),
    }
