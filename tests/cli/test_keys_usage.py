"""`keys usage`, as an owner asks what a key did."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import pytest

from proxy.cli.keys_usage import print_chart
from proxy.database import Database
from proxy.flushing import Flusher
from proxy.identity import KeyId
from proxy.keys.last_uses import LastUseLog
from proxy.keys.token import parse_token
from proxy.usage import DayUse, Usage
from tests.cli.command import Command
from tests.clocks import ManualClock

RUN = "mcp/tool:aegis.workflow.run"
TODAY = date(2026, 11, 29)


async def count(database: Database, key_id: KeyId, allowed: int, denied: int, days_ago: int = 0) -> None:
    """What a proxy writes of a day's decisions."""
    clock = ManualClock(wall=time.time() - days_ago * 86_400)
    usage = Usage(Flusher(database, uuid4(), 3600), clock, lambda: None)
    for _ in range(allowed):
        usage.count(key_id, RUN, ("workflow:run:nightly-etl",), True)
    for _ in range(denied):
        usage.count(key_id, None, (), False)
    assert await usage.flush()


async def mint(aegis: Command, database: Database, days_ago: int) -> KeyId:
    key_id = parse_token(await aegis.mint("--name", "nightly job")).key_id
    await database.fetch(
        "UPDATE api_keys SET created_at = now() - make_interval(days => $2) WHERE id = $1", key_id, days_ago
    )
    return key_id


async def test_what_a_key_did_is_shown_by_day_and_by_rule(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, days_ago=3)
    for days_ago, allowed, denied in ((0, 5, 1), (2, 10, 0)):
        await count(database, key_id, allowed, denied, days_ago)
    log = LastUseLog(Flusher(database, uuid4(), 3600), ManualClock(wall=1_764_432_000), lambda: None)
    log.note_use(key_id, 1, "aegis.workflow.run", None, "agent/1.0")
    await log.flush()
    outcome = await aegis.run("keys", "usage", key_id, "--days", "7")
    assert outcome.code == 0, outcome.stderr
    assert f"nightly job ({key_id}) of ada" in outcome.stdout
    assert "Last used 2025-11-29 16:00Z by agent/1.0: aegis.workflow.run (1 calls)" in outcome.stdout
    today = datetime.now(UTC).date()
    days = [line.split() for line in outcome.stdout.splitlines() if line.startswith("20")]
    assert [(*numbers[:3], numbers[3:]) for numbers in days] == [
        ((today - timedelta(days=3)).isoformat(), "0", "0", []),
        ((today - timedelta(days=2)).isoformat(), "10", "0", ["█" * 40]),
        ((today - timedelta(days=1)).isoformat(), "0", "0", []),
        (today.isoformat(), "5", "1", ["█" * 20 + "░" * 4]),
    ]
    words = " ".join(outcome.stdout.partition("RULE")[2].split())
    assert f"{RUN} workflow:run:nig allowed 15" in words
    assert "none - denied 1" in words
    assert outcome.stderr == "15 calls allowed and 1 denied in 4 days.\n"


async def test_as_json_it_has_every_day_and_every_use(aegis: Command, database: Database) -> None:
    key_id = await mint(aegis, database, days_ago=0)
    await count(database, key_id, 2, 1)
    outcome = await aegis.run("keys", "usage", key_id, "--days", "3", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    today = datetime.now(UTC).date()
    told = outcome.json
    for use in told["uses"]:
        assert datetime.fromisoformat(use.pop("last_at")).date() == today
    assert told == {
        "id": key_id,
        "name": "nightly job",
        "last_used": None,
        "last_refused": None,
        "days": [
            {"day": (today - timedelta(days=2)).isoformat(), "allowed": 0, "denied": 0},
            {"day": (today - timedelta(days=1)).isoformat(), "allowed": 0, "denied": 0},
            {"day": today.isoformat(), "allowed": 2, "denied": 1},
        ],
        "uses": [
            {"rule": RUN, "scopes": ["workflow:run:nightly-etl"], "allowed": True, "count": 2},
            {"rule": None, "scopes": [], "allowed": False, "count": 1},
        ],
    }


async def test_a_key_that_did_nothing_says_so_and_one_that_is_not_there_exits_5(
    aegis: Command, database: Database
) -> None:
    key_id = await mint(aegis, database, days_ago=0)
    idle = await aegis.run("keys", "usage", key_id)
    assert (idle.code, idle.stderr) == (0, "0 calls allowed and 0 denied in 1 days.\n")
    assert idle.stdout.splitlines() == [f"nightly job ({key_id}) of ada", "Never used."]
    unknown = await aegis.run("keys", "usage", "Unknown00000")
    assert (unknown.code, unknown.stdout) == (5, "")
    assert unknown.stderr == "There is no key Unknown00000. See: aegis-proxy keys list\n"
    assert (await aegis.run("keys", "usage", key_id, "--days", "401")).code == 2


@pytest.mark.parametrize("width", ["60", "80", "300"])
def test_a_chart_fits_and_shows_whatever_happened_at_all(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    numbers = [(1_000_000, 0), (1, 0), (0, 1), (999_999, 1), (500_000, 500_000), (0, 0)]
    days = [DayUse(TODAY + timedelta(days=ago), True, *pair) for ago, pair in enumerate(numbers)]
    print_chart(days)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert all(len(line) <= int(width) for line in lines)
    bars = [line.rpartition("  ")[2] if set(line) & {"█", "░"} else "" for line in lines]
    longest = len(bars[0])
    assert bars == [
        "█" * longest, "█", "░", "█" * (longest - 1) + "░", "█" * (longest // 2) + "░" * (longest // 2), "",
    ]  # fmt: skip


def test_more_days_than_a_month_has_are_summed_by_weeks_that_end_today(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_chart([DayUse(TODAY - timedelta(days=ago), True, 1, 2) for ago in reversed(range(33))])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("WEEK OF")
    assert [line.split()[:3] for line in lines] == [
        ["2026-10-28", "5", "10"], *([(date(2026, 11, 2) + timedelta(days=7 * week)).isoformat(), "7", "14"]
                                     for week in range(4)),
    ]  # fmt: skip
