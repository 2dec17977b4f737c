"""Refusals become the error that stands in SURFACE.md, in the server's own words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import aegis_sdk
from aegis_sdk import ApiError, AuthenticationError, ConflictError, InputError, InputFault, PermissionDeniedError
from aegis_sdk.errors import form_error, form_problem_error, parse_retry_after

NOW = datetime(2026, 11, 29, tzinfo=UTC)
BY_STATUS = {
    400: "InputError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    412: "KeyChangedError",
    413: "InputError",
    415: "InputError",
    422: "InputError",
    429: "RateLimitedError",
    502: "UpstreamError",
    503: "UnavailableError",
    504: "UpstreamError",
    405: "ApiError",
    418: "ApiError",
    500: "ApiError",
    599: "ApiError",
}
BY_CODE = {
    "credential_missing": "AuthenticationError",
    "credential_invalid": "InvalidKeyError",
    "credential_malformed": "InvalidKeyError",
    "key_revoked": "KeyRevokedError",
    "key_expired": "KeyExpiredError",
    "key_disabled": "KeyDisabledError",
    "secret_retired": "SecretRetiredError",
    "owner_disabled": "OwnerDisabledError",
}


def name_error(status: int, **problem: object) -> str:
    return type(form_error(status, {}, json.dumps(problem).encode(), NOW)).__name__


@pytest.mark.parametrize(("status", "name"), BY_STATUS.items())
def test_the_status_decides(status: int, name: str) -> None:
    assert name_error(status) == name
    assert name_error(status, code="some_word", detail="no") == name


@pytest.mark.parametrize(("code", "name"), BY_CODE.items())
def test_the_code_refines_401_and_nothing_else(code: str, name: str) -> None:
    assert name_error(401, code=code) == name
    assert name_error(403, code=code) == "PermissionDeniedError"


def test_a_problem_is_told_in_its_own_words() -> None:
    problem = {
        "type": "urn:aegis-proxy:problem:route_denied", "title": "Not allowed", "status": 403, "detail": "No.",
        "code": "route_denied", "request_id": "r1", "missing": ["a:b", 7], "smallest_sufficient": "a:b", "held": "c:d",
        "rule": "x",
    }  # fmt: skip
    error = form_error(403, {"retry-after": "3"}, json.dumps(problem).encode(), NOW)
    assert isinstance(error, PermissionDeniedError)
    assert str(error) == "No. (route_denied, request r1)"
    assert (error.status, error.title, error.type) == (403, "Not allowed", problem["type"])
    assert (error.missing, error.smallest_sufficient, error.held, error.required) == (["a:b"], "a:b", [], [])
    assert (error.rule, error.retry_after, error.problem) == ("x", 3.0, problem)


def test_the_platforms_own_errors_have_no_code() -> None:
    error = form_error(409, {}, b'{"error": "there is one"}', NOW)
    assert isinstance(error, ConflictError)
    assert (str(error), error.detail, error.code, error.request_id) == ("there is one", "there is one", None, None)


@pytest.mark.parametrize(
    "body", [b"", b"<html>secret</html>", b'["secret"]', b'{"detail": 7}', b"\xff", b"[" * 100_000]
)
def test_a_body_that_is_none_of_the_apis_is_not_repeated(body: bytes) -> None:
    error = form_error(502, {}, body, NOW)
    assert str(error) == "Bad Gateway"
    assert str(form_error(599, {}, body, NOW)) == "status 599"


def test_faults_name_their_fields() -> None:
    problem = {"detail": "no", "faults": [{"field": "name", "message": "is empty"}, "odd", {}]}
    error = form_problem_error(problem, 422)
    assert isinstance(error, InputError)
    assert error.faults == [InputFault("name", "is empty"), InputFault("", "")]
    assert not InputError("no", status=400, problem={"faults": "none"}).faults


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None), ("", None), ("soon", None), ("-1", None), ("٣", None), ("0", 0.0), ("120", 120.0),
        (format_datetime(NOW + timedelta(minutes=1), usegmt=True), 60.0),
        (format_datetime(NOW - timedelta(minutes=1), usegmt=True), 0.0),
        ("9" * 5000, 999_999_999.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


def test_every_class_of_the_tree_is_exported() -> None:
    def walk(kind: type[Exception]) -> set[str]:
        return {kind.__name__, *(name for sub in kind.__subclasses__() for name in walk(sub))}

    assert walk(aegis_sdk.AegisError) <= set(aegis_sdk.__all__)
    assert issubclass(AuthenticationError, ApiError)
