"""The ear hears: a secret that stands where none may is found, wherever it is, and nothing else is."""

from __future__ import annotations

import pytest

from proxy.keys.minting import draw_token
from tests.ear import Ear, dump_tables, find_leaks
from tests.staging import Stage


@pytest.fixture
def own() -> Ear:
    """An ear of the test's own: what it hears here is no leak of the run's."""
    return Ear()


def test_a_secret_in_the_log_is_found(own: Ear) -> None:
    token, other = draw_token(), draw_token()
    own.secrets += [token.text, other.text]
    own.heard.write(f'{{"key":"{token.key_id}"}}\n'.encode())
    assert own.find_leaks() == []
    own.heard.write(f'{{"said":"{token.secret}"}}\n'.encode())
    assert own.find_leaks() == [f"aegis_{token.key_id} in the log"]


def test_a_secret_in_an_error_is_found_and_in_the_answer_that_brings_it_allowed(own: Ear) -> None:
    token = draw_token()
    own.secrets.append(token.text)
    own.hear_answer(201, f'{{"key":"{token.text}"}}'.encode())
    assert own.find_leaks() == []
    for status, body in ((401, token.text), (200, f'{{"error":{{"message":"{token.secret}"}}}}')):
        own.hear_answer(status, body.encode())
    assert own.find_leaks() == [f"aegis_{token.key_id} in the body of an answer {status}" for status in (401, 200)]


@pytest.mark.parametrize(
    "column", ["revoked_reason = $1", "name = $1", "constraints = jsonb_build_object('x', $1::text)"]
)
async def test_a_secret_of_the_test_in_any_table_is_found(column: str, stage: Stage, own: Ear) -> None:
    await stage.mint()
    token = draw_token()
    own.secrets.append(token.text)
    await own.hear_tables(stage.database_url)
    assert own.find_leaks() == []
    await stage.sql(f"UPDATE api_keys SET {column}", token.secret)
    await own.hear_tables(stage.database_url)
    assert own.find_leaks() == [f"aegis_{token.key_id} in a table"]
    own.begin()
    await own.hear_tables(stage.database_url)
    assert len(own.find_leaks()) == 1


async def test_a_secret_in_a_binary_column_is_found_and_the_argon2_string_is_none(stage: Stage) -> None:
    key, token = await stage.mint(), draw_token()
    dumped = await dump_tables(stage.database_url)
    assert b"$argon2id$" in dumped
    assert key.summary.id.encode() in dumped
    assert find_leaks(dumped, [key.token, token.text]) == []
    await stage.sql("INSERT INTO mcp_tasks VALUES ('mcp', $1, 'k', 'o', '{}')", token.secret.encode())
    assert find_leaks(await dump_tables(stage.database_url), [token.text]) == [f"aegis_{token.key_id}"]
