"""Asking, as often as may be, and taking the answer or raising.

In: a `Call`. Out: an answer of 2xx, or one of `errors`. What the HTTP library knew of the request (its headers hold the
key) ends here: errors are raised outside the frames and exceptions it was handled in. Refuses to know: resources.
"""

from __future__ import annotations

import logging
import random
from datetime import UTC, datetime
from typing import TypeVar

import anyio
import httpx2
from pydantic import BaseModel, ValidationError

from aegis_sdk._version import USER_AGENT
from aegis_sdk.calls import Call
from aegis_sdk.configuration import CONNECT_SECONDS, Configuration
from aegis_sdk.errors import (
    AegisError,
    ConnectionFailedError,
    RequestTimeoutError,
    UnexpectedAnswerError,
    form_error,
)
from aegis_sdk.expiry import HEADER, ExpiryNotice
from aegis_sdk.retrying import Failure, find_wait

Model = TypeVar("Model", bound=BaseModel)

log = logging.getLogger("aegis_sdk")
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class AsyncTransport:
    """One client's way to the proxy. A client of httpx2's that was given stays its giver's to close."""

    def __init__(self, configuration: Configuration, http_client: httpx2.AsyncClient | None) -> None:
        self.configuration = configuration
        self._given = http_client is not None
        self._http = http_client if http_client is not None else httpx2.AsyncClient()
        self._expiry = ExpiryNotice(configuration.on_key_expiry)

    async def aclose(self) -> None:
        if not self._given:
            await self._http.aclose()

    async def fetch(self, call: Call, model: type[Model]) -> Model:
        """The answer, as one of the models. Raises AegisError."""
        answer = await self.ask(call)
        return self.read(answer, model)

    async def ask(self, call: Call) -> httpx2.Response:
        """The answer, read to its end. Raises AegisError."""
        answer = await self.open(call)
        failure = await self._read_whole(answer)
        if failure is not None:
            raise failure
        return answer

    async def stream(self, call: Call) -> httpx2.Response:
        """An answer without an end, open, which may be silent from now on. Raises AegisError."""
        answer = await self.open(call)
        # Where httpcore looks before it reads on; there is no other way to say so after the head.
        answer.request.extensions["timeout"]["read"] = None
        return answer

    async def open(self, call: Call) -> httpx2.Response:
        """The answer, open: to be closed by whoever asked. Raises AegisError."""
        attempt = 1
        while isinstance(found := await self._attempt(call), Failure):
            wait = find_wait(self.configuration.retry, attempt, found, random.random())
            if not call.repeatable or wait is None:
                raise found.error
            log.debug("%s %s is tried again in %.2f s", call.method, call.path, wait)
            await anyio.sleep(wait)
            attempt += 1
        return found

    def read(self, answer: httpx2.Response, model: type[Model]) -> Model:
        """Raises UnexpectedAnswerError, which says where the answer differs, and nothing that stands in it."""
        try:
            return model.model_validate_json(answer.content)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False, include_context=False)
        where = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['type']}" for fault in faults[:3])
        raise UnexpectedAnswerError(f"the answer is not a {model.__name__}: {where}", answer.status_code)

    async def _attempt(self, call: Call) -> httpx2.Response | Failure:
        """An answer of 2xx, open; or what went wrong."""
        request = self._form(call)
        try:
            answer = await self._http.send(
                request, stream=True, auth=self.configuration.credential, follow_redirects=False
            )
        except httpx2.RequestError as error:
            return Failure(translate(error, call), unsent=isinstance(error, UNSENT))
        log.debug("%s %s: %d", call.method, call.path, answer.status_code)
        try:
            self._expiry.hear(answer.headers.get(HEADER))
        except BaseException:  # a callback of the user's
            await answer.aclose()
            raise
        return answer if answer.is_success else Failure(await self._refuse(answer))

    def _form(self, call: Call) -> httpx2.Request:
        timeout = self.configuration.timeout
        return self._http.build_request(
            call.method,
            self.configuration.base_url + call.path,
            params=call.query or None,
            json=call.body,
            content=call.content,
            headers={"Accept": "application/json", "User-Agent": USER_AGENT, **call.headers},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
        )

    async def _refuse(self, answer: httpx2.Response) -> AegisError:
        broken = await self._read_whole(answer)
        if broken is not None:
            return broken
        status = answer.status_code
        if not answer.is_error:
            return UnexpectedAnswerError(f"the answer is none of the API's: status {status}", status)
        return form_error(status, answer.headers, answer.content, datetime.now(UTC))

    async def _read_whole(self, answer: httpx2.Response) -> ConnectionFailedError | None:
        """Close it, read; or say what broke."""
        try:
            await answer.aread()
        except httpx2.RequestError as error:
            return translate(error, None)
        finally:
            await answer.aclose()
        return None


def translate(error: httpx2.RequestError, call: Call | None) -> ConnectionFailedError:
    """In our words. Whoever gets it raises it where `error` is not being handled any more."""
    during = f"{call.method} {call.path}" if call is not None else "reading an answer"
    if isinstance(error, httpx2.TimeoutException):
        return RequestTimeoutError(f"{during}: nothing came in time ({type(error).__name__})")
    return ConnectionFailedError(f"{during}: {str(error) or type(error).__name__}")
