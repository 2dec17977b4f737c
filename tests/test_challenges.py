"""How no is said: one answer for each reason, in each dialect."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from proxy.challenges import TABLE, Dialect, form_acknowledgement, form_answer, form_rpc_error, is_told_apart
from proxy.errors import Reason, Refusal

PLAIN, RPC, MODERN = Dialect(False), Dialect(True), Dialect(True, modern=True)
FORBIDDING = Dialect(True, rpc_denials="http-403")
DENIAL = {"missing": ["workflow:run:a", "agent:list"], "rule": "r", "allow": ["GET"]}
STATUSES = {
    200,
    400,
    401,
    403,
    404,
    405,
    406,
    408,
    409,
    412,
    413,
    415,
    417,
    421,
    422,
    429,
    431,
    501,
    502,
    503,
    504,
    505,
}


def answer(refusal: Refusal, dialect: Dialect) -> tuple[int, dict[str, str], dict[str, Any]]:
    formed = form_answer(refusal, dialect, realm="aegis", request_id="0123")
    return formed.status, formed.headers, json.loads(formed.body)


def test_every_reason_has_its_answer() -> None:
    assert set(TABLE) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("dialect", [PLAIN, RPC, MODERN, FORBIDDING])
def test_every_answer_names_its_reason_and_its_request(reason: Reason, dialect: Dialect) -> None:
    status, headers, body = answer(Refusal(reason, "why", rpc_id=7), dialect)
    assert status in STATUSES
    assert headers["X-Request-Id"] == "0123"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] == "aegis-proxy"
    if dialect.json_rpc:
        assert headers["Content-Type"] == "application/json"
        assert (body["jsonrpc"], body["id"], body["error"]["message"]) == ("2.0", 7, "why")
        assert body["error"]["data"] == {"reason": reason.value, "request_id": "0123"}
    else:
        assert headers["Content-Type"] == "application/problem+json"
        assert (body["code"], body["status"], body["detail"], body["error"]) == (reason.value, status, "why", "why")
        assert body["type"].endswith(reason)


@pytest.mark.parametrize("reason", Reason)
def test_our_own_codes_lie_outside_what_is_reserved(reason: Reason) -> None:
    """-32768 to -32000 belong to JSON-RPC and MCP; what we use of it means there what it means here."""
    code = json.loads(form_rpc_error(Refusal(reason, ""), "r"))["error"]["code"]
    assert code in (-32700, -32600, -32601, -32602, -32020, -32021) or -32000 < code <= -31400


@pytest.mark.parametrize("reason", Reason)
def test_only_a_known_fault_of_the_caller_says_401_or_403(reason: Reason) -> None:
    """Clients throw keys away on those."""
    status, headers, _ = answer(Refusal(reason, ""), PLAIN)
    if status in (401, 403):
        assert reason.value.startswith(
            (
                "credential_",
                "key_",
                "owner_",
                "secret_",
                "token_",
                "route_",
                "message_",
                "rights_",
                "origin_",
                "address_",
                "scope_",
                "expiry_",
                "constraints_",
                "not_",
                "too_many_generations",
                "tenant_",
                "role_",
            )
        )
    if status == 401:
        assert headers["WWW-Authenticate"].startswith('Bearer realm="aegis"')


def test_no_credential_is_challenged_without_an_error_code() -> None:
    _, headers, _ = answer(Refusal(Reason.CREDENTIAL_MISSING, ""), RPC)
    assert headers["WWW-Authenticate"] == 'Bearer realm="aegis"'


@pytest.mark.parametrize("reason", Reason)
def test_no_challenge_points_to_an_authorization_server(reason: Reason) -> None:
    _, headers, _ = answer(Refusal(reason, "", data=DENIAL), PLAIN)
    assert "resource_metadata" not in headers.get("WWW-Authenticate", "")


@pytest.mark.parametrize("reason", [Reason.MESSAGE_DENIED, Reason.RIGHTS_CHANGED])
def test_a_denied_request_is_answered_in_json_rpc_unless_the_route_says_otherwise(reason: Reason) -> None:
    request, notification = Refusal(reason, "", rpc_id=1, data=DENIAL), Refusal(reason, "", data=DENIAL)
    challenge = 'Bearer realm="aegis", error="insufficient_scope", scope="workflow:run:a agent:list"'
    status, headers, _ = answer(request, RPC)
    assert (status, headers.get("WWW-Authenticate")) == (200, None)
    for refusal, dialect in ((request, FORBIDDING), (notification, RPC), (notification, FORBIDDING), (request, PLAIN)):
        status, headers, _ = answer(refusal, dialect)
        assert (status, headers["WWW-Authenticate"]) == (403, challenge)


def test_an_id_of_zero_or_of_no_letters_is_an_id() -> None:
    for rpc_id in (0, ""):
        assert answer(Refusal(Reason.MESSAGE_DENIED, "", rpc_id=rpc_id), RPC)[0] == 200


def test_an_unknown_method_is_answered_as_the_revision_does() -> None:
    request, notification = Refusal(Reason.METHOD_UNKNOWN, "", rpc_id=1), Refusal(Reason.METHOD_UNKNOWN, "")
    assert [answer(request, dialect)[0] for dialect in (RPC, MODERN, FORBIDDING)] == [200, 404, 200]
    assert [answer(notification, dialect)[0] for dialect in (RPC, MODERN)] == [403, 403]


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "ä"])
def test_a_scope_that_would_break_out_of_the_challenge_is_left_out(scope: str) -> None:
    _, headers, body = answer(Refusal(Reason.ROUTE_DENIED, "", data={"missing": [scope]}), PLAIN)
    assert headers["WWW-Authenticate"] == 'Bearer realm="aegis", error="insufficient_scope"'
    assert body["missing"] == [scope]


def test_what_is_allowed_and_when_to_come_back_are_headers() -> None:
    refusal = Refusal(Reason.METHOD_NOT_ALLOWED, "", data={"allow": ["GET", "POST"]}, retry_after_seconds=3)
    _, headers, _ = answer(refusal, PLAIN)
    assert (headers["Allow"], headers["Retry-After"]) == ("GET, POST", "3")


def test_when_to_come_back_stands_in_the_body_too_where_no_client_shows_headers() -> None:
    refusal = Refusal(Reason.RATE_EXCEEDED, "why", retry_after_seconds=3, data={"burst": 1}, rpc_id=1)
    status, headers, body = answer(refusal, PLAIN)
    assert (status, headers["Retry-After"], body["retry_after_seconds"], body["burst"]) == (429, "3", 3, 1)
    status, headers, message = answer(refusal, RPC)
    assert (status, headers["Retry-After"], message["id"]) == (429, "3", 1)
    assert message["error"]["data"] == {
        "reason": "rate_exceeded", "request_id": "0123", "retry_after_seconds": 3, "burst": 1,
    }  # fmt: skip


def test_an_explanation_cannot_take_the_place_of_the_answer_s_own_words() -> None:
    """`data` is about the policy; status, code and request id are the answer's."""
    _, _, body = answer(Refusal(Reason.ROUTE_DENIED, "why", data=DENIAL), PLAIN)
    assert (body["status"], body["rule"], body["request_id"]) == (403, "r", "0123")
    _, _, message = answer(Refusal(Reason.MESSAGE_DENIED, "why", data=DENIAL, rpc_id=1), RPC)
    assert message["error"]["data"] == {"reason": "message_denied", "request_id": "0123", **DENIAL}


def test_what_cannot_be_trusted_to_be_followed_by_a_request_closes_the_connection() -> None:
    closing = {reason for reason in Reason if form_answer(Refusal(reason, ""), PLAIN, realm="", request_id="").close}
    assert closing >= {
        Reason.REQUEST_UNREADABLE, Reason.HEAD_TOO_LARGE, Reason.TARGET_NOT_CANONICAL, Reason.HEADER_REPEATED,
        Reason.HTTP_VERSION_UNSUPPORTED, Reason.TRANSFER_ENCODING_UNSUPPORTED, Reason.BODY_TOO_LARGE,
        Reason.BODY_TIMEOUT, Reason.BODY_UNEXPECTED, Reason.DRAINING,
    }  # fmt: skip
    assert not closing & {Reason.CREDENTIAL_MISSING, Reason.MESSAGE_DENIED, Reason.ROUTE_UNKNOWN}


APART = Dialect(json_rpc=True, apart=True)
TOLD = {
    Reason.MESSAGE_DENIED, Reason.RIGHTS_CHANGED, Reason.METHOD_UNKNOWN, Reason.HANDLE_UNKNOWN, Reason.PARAMS_INVALID,
    Reason.CAPABILITY_MISSING, Reason.RATE_EXCEEDED, Reason.CALLS_EXCEEDED,
}  # fmt: skip


def test_what_a_server_would_answer_in_json_rpc_is_told_on_the_stream_where_answers_come_by_one() -> None:
    def find_told(dialect: Dialect, rpc_id: int | None = 0) -> set[Reason]:
        return {reason for reason in Reason if is_told_apart(Refusal(reason, "", rpc_id=rpc_id), dialect)}

    assert find_told(APART) == find_told(dataclasses.replace(APART, modern=True)) == TOLD
    assert find_told(APART, None) == set()
    for dialect in (RPC, MODERN, PLAIN, FORBIDDING):
        assert find_told(dialect) == set()
    forbidding = dataclasses.replace(APART, rpc_denials="http-403")
    assert find_told(forbidding) == TOLD - {Reason.MESSAGE_DENIED, Reason.RIGHTS_CHANGED}


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("rpc_id", [None, 1])
def test_where_answers_come_by_a_stream_no_refusal_looks_like_an_acknowledgement(
    modern: bool, rpc_id: int | None
) -> None:
    statuses = {
        reason: answer(Refusal(reason, "", rpc_id=rpc_id), dataclasses.replace(APART, modern=modern))[0]
        for reason in Reason
    }
    assert min(statuses.values()) >= 400
    assert {reason for reason in TOLD if statuses[reason] == 403} == TOLD - {
        Reason.PARAMS_INVALID,
        Reason.CAPABILITY_MISSING,
        Reason.RATE_EXCEEDED,
        Reason.CALLS_EXCEEDED,
    }


def test_the_acknowledgement_of_what_is_told_elsewhere_says_nothing() -> None:
    told = form_acknowledgement("0123")
    assert (told.status, told.body, told.close) == (202, b"", False)
    assert told.headers["X-Request-Id"] == "0123"
    assert told.headers["Cache-Control"] == "no-store"
