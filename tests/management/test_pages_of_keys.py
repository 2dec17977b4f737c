"""A page of ten thousand keys costs what the page costs: the indexes are used, and nothing is sorted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.database import Database
from proxy.identity import KeyId, OwnerId
from proxy.keys.listing import Search, form_statement, list_keys
from proxy.keys.record import Place
from proxy.keys.rights import View
from tests.staging import Stage

KEYS, OWNERS = 10_000, 20
FILL = f"""
INSERT INTO owners (tenant_id, issuer, subject, tier)
SELECT CASE WHEN n < 15 THEN 'home' ELSE 'abroad' END, 'local', 'owner ' || n, 'pro'
  FROM generate_series(0, {OWNERS - 1}) AS n;
INSERT INTO api_keys (id, owner_id, name, preset, scopes, created_by, created_at, status)
SELECT lpad(n::text, 12, '0'), o.id, 'key ' || n, 'read-only', '{{agent:list}}', 'test',
       timestamptz '2026-01-01 00:00Z' + n / 3 * interval '1 minute',
       CASE WHEN n % 10 = 0 THEN 'revoked' WHEN n % 10 = 1 THEN 'disabled' ELSE 'active' END
  FROM generate_series(0, {KEYS - 1}) AS n JOIN owners o ON o.subject = 'owner ' || n % {OWNERS};
ANALYZE
"""


@pytest.fixture
async def filled(stage: Stage) -> Stage:
    """Keys of twenty owners; three of each minute."""
    await stage.sql(FILL)
    return stage


async def get_owner(database: Database, number: int) -> OwnerId:
    return OwnerId(str((await database.fetch("SELECT id FROM owners WHERE subject = $1", f"owner {number}"))[0]["id"]))


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


@pytest.mark.parametrize("search", [Search(), Search(statuses=("active", "disabled")), Search(text="Y 99")], ids=str)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("own", "index"), [(True, "api_keys_owner_age"), (False, "api_keys_age")])
async def test_a_page_is_read_from_an_index_in_its_order(
    search: Search, deep: bool, own: bool, index: str, filled: Stage
) -> None:
    view = View("home", await get_owner(filled.database, 3) if own else None, None)
    after = Place(datetime(2026, 1, 2, tzinfo=UTC), f"{4000:012}") if deep else None
    statement, arguments = form_statement(view, search, after, 51)
    (row,) = await filled.database.fetch(f"EXPLAIN (FORMAT JSON) {statement}", *arguments)
    nodes = list(walk(json.loads(row[0])[0]["Plan"]))
    assert index in {node.get("Index Name") for node in nodes}
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan" and node["Relation Name"] == "api_keys"]
    assert "Sort" not in {node["Node Type"] for node in nodes}


async def test_pages_put_together_are_the_whole_and_each_key_once(filled: Stage) -> None:
    view = View("home", None, None)
    seen: list[str] = []
    after = None
    while page := await list_keys(filled.database, view, Search(), after, 200):
        seen += [key.id for key in page]
        after = Place(page[-1].created_at, page[-1].id)
    expected = [f"{number:012}" for number in range(KEYS - 1, -1, -1) if number % OWNERS < 15]
    assert seen == expected


async def test_a_tree_is_found_among_ten_thousand(filled: Stage) -> None:
    root = await filled.mint("full-access", owner="owner 3")
    await filled.sql(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by, parent_id) SELECT 'child0000001', owner_id,"
        " 'child', scopes, 'test', id FROM api_keys WHERE id = $1", root.summary.id,
    )  # fmt: skip
    view = View("home", await get_owner(filled.database, 3), KeyId(root.summary.id))
    found = await list_keys(filled.database, view, Search(), None, 50)
    assert {key.id for key in found} == {"child0000001", root.summary.id}
