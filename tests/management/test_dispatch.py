"""What is sent to the management API is judged before anything is done: by real sockets, on a real database."""

from __future__ import annotations

import json

import aiohttp
import pytest

from proxy.demo.sample_server import SampleServer
from proxy.management.dispatch import MAX_BODY_BYTES
from tests.ear import Ear
from tests.management.asking import KEYS, Api
from tests.staging import Stage

WANTED = {"name": "ci", "preset": "read-only"}


async def test_a_management_request_has_a_line_of_its_own_and_a_count(api: Api, stage: Stage, ear: Ear) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("GET", KEYS, admin.token)
    lines = [json.loads(line) for line in ear.heard.getvalue().splitlines() if b'"request"' in line]
    (line,) = [line for line in lines if line["request_id"] == said.headers["X-Request-Id"]]
    assert (line["route"], line["name"], line["outcome"], line["status"]) == (
        "management", "list_api_keys", "managed", 200,
    )  # fmt: skip
    assert line["key_id"] == admin.summary.id
    assert line["rule"] == "management/list_api_keys"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", KEYS, "GET, POST"),
        ("HEAD", KEYS, "GET, POST"),
        ("OPTIONS", f"{KEYS}/000000000000", "GET"),
        ("POST", "/v1/scopes", "GET"),
    ],
)
async def test_another_method_is_answered_with_those_that_there_are(
    method: str, path: str, allowed: str, api: Api
) -> None:
    answer = await api.http.request(method, f"http://{api.proxy.data_address}{path}")
    assert answer.status == 405
    assert set(allowed.split(", ")) <= set(answer.headers["Allow"].split(", "))


async def test_a_path_beside_the_endpoints_is_unknown_and_never_forwarded(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    for path in (f"{KEYS}/a/b/c", "/v1/owners/a/b"):
        assert (await api.ask("GET", path, admin.token)).code == "route_unknown"


async def test_without_a_credential_there_is_a_challenge(api: Api) -> None:
    said = await api.ask("GET", KEYS, None)
    assert (said.status, said.code) == (401, "credential_missing")
    assert said.headers["WWW-Authenticate"] == 'Bearer realm="aegis"'


async def test_a_caller_without_the_scope_is_told_which_one_it_takes(api: Api, stage: Stage) -> None:
    key = await stage.mint("read-only")
    said = await api.ask("POST", KEYS, key.token, WANTED)
    assert (said.status, said.code, said.json["missing"]) == (403, "scope_missing", ["key:create"])
    assert 'scope="key:create"' in said.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "message_unreadable"),
        (b"{", 400, "message_unreadable"),
        (b'{"name": "a", "name": "b"}', 400, "message_unreadable"),
        (b'{"name": NaN}', 400, "message_unreadable"),
        (b'{"name": "\xff"}', 400, "message_unreadable"),
        (b"[" * 100 + b"]" * 100, 400, "message_unreadable"),
        (b"[]", 422, "input_invalid"),
        (b"null", 422, "input_invalid"),
        (b'"name"', 422, "input_invalid"),
        (b" " * MAX_BODY_BYTES + b"{}", 413, "body_too_large"),
    ],
    ids=["nothing", "half", "twice", "NaN", "no UTF-8", "deep", "a list", "null", "a text", "too large"],
)
async def test_a_body_that_is_no_strict_object_changes_nothing(
    body: bytes, status: int, code: str, api: Api, stage: Stage
) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", KEYS, admin.token, body)
    assert (said.status, said.code) == (status, code)
    assert await api.list_ids(admin.token) == [admin.summary.id]


async def test_a_number_may_be_spelt_in_any_way(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    body = b'{"name": "slow", "preset": "read-only", "constraints": {"requests_per_second": 1e2}}'
    said = await api.ask("POST", KEYS, admin.token, body)
    assert (said.status, said.json["constraints"]) == (201, {"requests_per_second": 100.0})


@pytest.mark.parametrize("media_type", ["text/plain", "application/JSON", "application/json, text/plain", "", "a/b"])
async def test_another_media_type_is_refused(media_type: str, api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", KEYS, admin.token, WANTED, Content_Type=media_type)
    assert (said.status, said.code) == (415, "content_type_unsupported")


async def test_a_body_where_none_belongs_is_refused(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    assert (await api.ask("GET", KEYS, admin.token, {})).code == "body_unexpected"


@pytest.mark.parametrize("query", ["page=2", "limit=1&limit=2", "Limit=1", "tenant_id=x", "%ff=1"])
async def test_a_query_with_other_members_is_refused(query: str, api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("GET", f"{KEYS}?{query}", admin.token)
    assert (said.status, said.code) == (400, "query_not_allowed")


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("status=gone", "status.0"),
     ("sort=name", "sort"), ("cursor=x", "cursor"), ("q=%00", "q"), ("cursor=azEuMDAwMDAwMDAwMDAwMDA", "cursor")],
)  # fmt: skip
async def test_a_query_of_the_wrong_shape_names_its_member(query: str, field: str, api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("GET", f"{KEYS}?{query}", admin.token)
    assert (said.status, said.code, said.fields) == (422, "input_invalid", [field])


async def test_a_foreign_origin_is_refused(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    assert (await api.ask("GET", KEYS, admin.token, Origin="https://evil.example")).code == "origin_not_allowed"


async def test_a_denial_is_counted_and_audited_as_others_are(
    http: aiohttp.ClientSession, stage: Stage, sample: SampleServer
) -> None:
    key = await stage.mint("read-only")
    async with stage.proxy(sample.url) as proxy:  # which writes what it has gathered when it stops
        api = Api(http, proxy, stage)
        await api.ask("POST", KEYS, key.token, WANTED)
        await api.ask("GET", "/v1/scopes", key.token)
    (event,) = await stage.database.fetch("SELECT * FROM audit_events WHERE action = 'request.denied'")
    denial = json.loads(event["after"])
    assert (event["key_id"], denial["reason"], denial["missing"]) == (key.summary.id, "scope_missing", ["key:create"])
    counted = await stage.database.fetch("SELECT rule, scopes, allowed, count FROM key_usage ORDER BY rule")
    assert [(row["rule"], row["scopes"], row["allowed"], row["count"]) for row in counted] == [
        ("management/create_api_key", ["key:create"], False, 1),
        ("management/list_scopes", [], True, 1),
    ]
