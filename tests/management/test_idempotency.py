"""The same request twice is done once, and its token shown once."""

from __future__ import annotations

import asyncio

import pytest

from tests.management.asking import KEYS, Api
from tests.staging import Stage

WANTED = {"name": "ci", "preset": "read-only"}
WORD = "2f1c-ab"


async def test_a_repeated_request_is_answered_without_the_token(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    first = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    again = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    assert (first.status, again.status) == (201, 200)
    assert (first.headers.get("Idempotent-Replay"), again.headers["Idempotent-Replay"]) == (None, "true")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "key" not in again.json
    assert {**again.json, "key": first.json["key"]} == first.json
    assert len(await api.list_ids(admin.token)) == 2


async def test_the_same_word_for_another_request_is_refused(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = (await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)).json
    for path, body in ((KEYS, {**WANTED, "name": "cd"}), (f"{KEYS}/{made['id']}/rotate", {})):
        said = await api.ask("POST", path, admin.token, body, Idempotency_Key=WORD)
        assert (said.status, said.fields) == (422, ["Idempotency-Key"])
    assert len(await api.list_ids(admin.token)) == 2


async def test_a_word_is_its_caller_s_own(api: Api, stage: Stage) -> None:
    for owner in ("ada", "bob"):
        admin = await stage.mint("full-access", owner=owner)
        said = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
        assert (said.status, said.json["owner"]) == (201, owner)


async def test_of_ten_at_once_one_is_done(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await asyncio.gather(*(api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD) for _ in range(10)))
    assert sorted(one.status for one in said) == [200] * 9 + [201]
    assert len({one.json["id"] for one in said}) == 1


async def test_a_repeated_rotation_leaves_the_new_token_good(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    made = await api.mint(admin.token)
    path = f"{KEYS}/{made['id']}/rotate"
    rotated = (await api.ask("POST", path, admin.token, {"grace": "now"}, Idempotency_Key=WORD)).json
    again = await api.ask("POST", path, admin.token, {"grace": "now"}, Idempotency_Key=WORD)
    assert (again.status, again.headers["Idempotent-Replay"], "key" in again.json) == (200, "true", False)
    assert (await api.ask("GET", "/v1/scopes", rotated["key"])).status == 200


async def test_a_refused_request_is_not_remembered(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    taken = await api.mint(admin.token, name="ci")
    said = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    assert (said.status, said.code) == (409, "key_conflict")
    await api.ask("DELETE", f"{KEYS}/{taken['id']}", admin.token)
    assert (await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)).status == 201


async def test_who_lost_the_right_is_not_told_what_became_of_it(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    await stage.sql("UPDATE api_keys SET scopes = '{agent:list}' WHERE id = $1", admin.summary.id)
    said = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    assert (said.status, said.code) == (403, "scope_missing")


@pytest.mark.parametrize("word", ["a" * 256, "zwei Worte", "ö"])
async def test_a_word_is_short_and_plain(word: str, api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    said = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=word)
    assert (said.status, said.fields) == (422, ["Idempotency-Key"])


async def test_words_are_forgotten_after_a_day(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    first = (await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)).json
    for number in range(3):
        body = {**WANTED, "name": f"other {number}"}
        await api.ask("POST", KEYS, admin.token, body, Idempotency_Key=f"{WORD}{number}")
    await stage.sql("UPDATE idempotency SET at = now() - interval '25 hours'")
    await api.ask("DELETE", f"{KEYS}/{first['id']}", admin.token)
    said = await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    assert said.status == 201
    assert said.json["id"] != first["id"]
    assert len(await stage.database.fetch("SELECT FROM idempotency")) == 1


async def test_nothing_that_was_sent_stands_in_the_table(api: Api, stage: Stage) -> None:
    admin = await stage.mint("full-access")
    await api.ask("POST", KEYS, admin.token, WANTED, Idempotency_Key=WORD)
    (row,) = await stage.database.fetch("SELECT i::text AS text FROM idempotency i")
    assert WORD not in row["text"]
    assert admin.summary.id not in row["text"]
