"""What can go wrong, one class for each kind: the tree of `SURFACE.md`.  [pure]

In: the status, headers and body of a refusal, or the problem that ends a stream. Out: the error to be raised, with the
server's own words. Refuses to know: who asked, and with which key; nothing in here ever held one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aegis_sdk.models import ApiKey


class AegisError(Exception):
    """The root of everything this package raises on purpose."""


class ConfigurationError(AegisError):
    """Nothing was sent: there is no key, no base URL, or a package is missing."""


class ConnectionFailedError(AegisError):
    """There was no answer: no connection could be made, or it broke."""


class RequestTimeoutError(ConnectionFailedError):
    """Nothing came for as long as `timeout` says."""


class StreamInterruptedError(ConnectionFailedError):
    """A stream broke off, and nobody said why."""


class UnexpectedAnswerError(AegisError):
    """An answer that is none of the API's: a redirect, something else than JSON, other members than there should be."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class SecretNotShownError(AegisError):
    """The key was made (or rotated) by an earlier attempt, whose answer was lost with the secret in it.

    `api_key` is that key, without the secret: rotate it to get one that you see, or revoke it.
    """

    def __init__(self, api_key: ApiKey) -> None:
        super().__init__(f"the secret of key {api_key.id} was in an answer that got lost: rotate it, or revoke it")
        self.api_key = api_key


@dataclass(frozen=True, slots=True)
class InputFault:
    """One thing that is wrong with what was sent; `field` is its path, such as `constraints.sources[0]`."""

    field: str
    message: str


class ApiError(AegisError):
    """A refusal, in the server's own words.

    `code` is the stable word for the reason (`key_revoked`), None where the platform itself refused; `problem` holds
    every member of the answer. `retry_after`: seconds, where the server says when to come back.
    """

    def __init__(
        self, detail: str, *, status: int | None, problem: Mapping[str, Any], retry_after: float | None = None
    ) -> None:
        self.detail = detail
        self.status = status
        self.problem = dict(problem)
        self.code = _find_text(problem, "code")
        self.title = _find_text(problem, "title")
        self.type = _find_text(problem, "type")
        self.request_id = _find_text(problem, "request_id")
        self.retry_after = retry_after
        known = (self.code, self.request_id and f"request {self.request_id}")
        beside = ", ".join(filter(None, known))
        super().__init__(f"{detail} ({beside})" if beside else detail)


class InputError(ApiError):
    """What was sent cannot be taken, and sending it again will not help. `faults` names each field, where known."""

    @property
    def faults(self) -> list[InputFault]:
        found = self.problem.get("faults")
        faults = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        return [InputFault(str(each.get("field", "")), str(each.get("message", ""))) for each in faults]


class AuthenticationError(ApiError):
    """The key does not open the door."""


class InvalidKeyError(AuthenticationError):
    """There is no such key: unknown, mistyped, or its secret is another."""


class KeyRevokedError(AuthenticationError):
    """The key was revoked. That is for good."""


class KeyExpiredError(AuthenticationError):
    """The key's time is over."""


class KeyDisabledError(AuthenticationError):
    """The key is switched off; it may be enabled again."""


class SecretRetiredError(AuthenticationError):
    """The key was rotated, and this is its old secret, past its grace."""


class OwnerDisabledError(AuthenticationError):
    """The account the key belongs to is disabled."""


class PermissionDeniedError(ApiError):
    """The key may not do that."""

    @property
    def missing(self) -> list[str]:
        """The scopes that are needed and not held."""
        return _find_texts(self.problem, "missing")

    @property
    def smallest_sufficient(self) -> str | None:
        """The narrowest scope that would do; None: no single one would, or it is not told."""
        return _find_text(self.problem, "smallest_sufficient")

    @property
    def required(self) -> list[str]:
        return _find_texts(self.problem, "required")

    @property
    def held(self) -> list[str]:
        """What the key may do, all in all."""
        return _find_texts(self.problem, "held")

    @property
    def rule(self) -> str | None:
        """The rule of the policy that decided."""
        return _find_text(self.problem, "rule")


class NotFoundError(ApiError):
    """There is no such thing, or none for this key."""


class ConflictError(ApiError):
    """It stands against what is there already."""


class KeyChangedError(ConflictError):
    """The key is not at the version any more that the change was made for."""


class RateLimitedError(ApiError):
    """Too many requests; `retry_after` says when to come back."""


class UpstreamError(ApiError):
    """The platform behind the proxy did not answer, or not in time."""


class UnavailableError(ApiError):
    """It cannot be said right now; the key may be perfectly good."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InputError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: KeyChangedError,
    413: InputError,
    415: InputError,
    422: InputError,
    429: RateLimitedError,
    502: UpstreamError,
    503: UnavailableError,
    504: UpstreamError,
}
_BY_CODE: dict[str | None, type[ApiError]] = {
    "credential_invalid": InvalidKeyError,
    "credential_malformed": InvalidKeyError,
    "key_revoked": KeyRevokedError,
    "key_expired": KeyExpiredError,
    "key_disabled": KeyDisabledError,
    "secret_retired": SecretRetiredError,
    "owner_disabled": OwnerDisabledError,
}
# Of a problem on a stream, which has no status line of its own.
_OURS = "urn:aegis-proxy:problem:"


def form_error(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> ApiError:
    """What a refused request is answered with. A body that is neither a problem nor `{"error": …}` is not repeated."""
    return form_problem_error(read_object(body), status, parse_retry_after(headers.get("retry-after"), now))


def form_problem_error(problem: Mapping[str, Any], status: int, retry_after: float | None = None) -> ApiError:
    detail = _find_text(problem, "detail") or _find_text(problem, "error") or _find_phrase(status)
    kind = _BY_STATUS.get(status, ApiError)
    if kind is AuthenticationError:
        kind = _BY_CODE.get(_find_text(problem, "code"), AuthenticationError)
    return kind(detail, status=status, problem=problem, retry_after=retry_after)


def find_stream_error(problem: object) -> ApiError | None:
    """The error that a stream's last event tells of; None: it is the platform's own event, and no end."""
    if not isinstance(problem, dict) or not str(problem.get("type", "")).startswith(_OURS):
        return None
    status = problem.get("status")
    return form_problem_error(problem, status if isinstance(status, int) else 0)


def refuse_input(field: str, message: str) -> InputError:
    """What is not even sent."""
    fault = {"field": field, "message": message}
    return InputError(f"{field}: {message}", status=None, problem={"faults": [fault]})


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds, from seconds or a date (RFC 9110 section 10.2.3); None: it says neither."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds(), 0.0)


def read_object(body: bytes) -> dict[str, Any]:
    """A body that is a JSON object; empty if it is not."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _find_text(problem: Mapping[str, Any], member: str) -> str | None:
    found = problem.get(member)
    return found if isinstance(found, str) and found else None


def _find_texts(problem: Mapping[str, Any], member: str) -> list[str]:
    found = problem.get(member)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _find_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"
