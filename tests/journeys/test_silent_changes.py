"""Changes that the news keeps silent about, restores over living tables, and news nobody should have sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from proxy.database import connect
from proxy.embedded_postgres import find_binaries
from proxy.keys.minting import MintedKey
from proxy.listener import TRIGGERS
from proxy.news import CHANNEL
from proxy.server import Proxy
from tests.patient_upstream import Open, PatientUpstream, open_all, run_patient_upstream
from tests.staging import GUARD_SECONDS, Stage, Wire, form_call, get_mcp_url

SCOPES = ("workflow:run", "workflow:list")
EVERY_SECOND = {"revalidate_seconds": 1.0}  # the rounds that find what escaped the news
ENABLE_ALL = """
DO $$ DECLARE one record; BEGIN
    FOR one IN SELECT tgrelid::regclass AS place, tgname FROM pg_trigger WHERE tgname LIKE 'aegis\\_%' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', one.place, one.tgname);
    END LOOP;
END $$
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """A proxy, and two keys of two owners with everything open: only the first is changed."""

    stage: Stage
    proxy: Proxy
    wire: Wire
    key: MintedKey
    good: MintedKey
    mine: Open
    theirs: Open

    async def change(self, sql: str) -> None:
        await self.stage.sql(sql.replace("{key}", f"'{self.key.summary.id}'"))

    async def call(self, key: MintedKey) -> int:
        """The status of a harmless call."""
        return await self.wire.call(key.token, "aegis.workflow.list")

    async def check_dead(self, reason: str) -> None:
        await self.mine.check_calls_ended(reason)
        await self.mine.check_stream_ended(401, reason)
        await self.mine.wait_upstream()
        assert await self.call(self.key) == 401

    async def check_good(self) -> None:
        """The other key never noticed."""
        await self.theirs.check_flowing("stream", "events", "silence")
        assert await self.call(self.good) == 200

    async def read_readiness(self) -> tuple[int, dict[str, Any]]:
        async with self.wire.http.get(f"http://{self.proxy.ops_address}/readyz") as answer:
            return answer.status, await answer.json()

    async def wait_ready(self) -> None:
        while (await self.read_readiness())[0] != 200:
            await asyncio.sleep(0.02)

    async def wait_fault(self, words: str) -> None:
        """Return once /readyz says this; a fault that comes and goes is remembered by the listener."""
        while words not in (self.proxy.heart.listener.fault or ""):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def open_scene(
    stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession, **revocation: float
) -> AsyncIterator[Scene]:
    key, good = await stage.mint(scopes=SCOPES), await stage.mint(scopes=SCOPES, owner="bob")
    async with stage.proxy(upstream.url, revocation=revocation) as proxy:
        wire = Wire(http, get_mcp_url(proxy))
        async with asyncio.timeout(GUARD_SECONDS):
            mine = await open_all("mine", key.token, wire, upstream)
            theirs = await open_all("theirs", good.token, wire, upstream)
            yield Scene(stage, proxy, wire, key, good, mine, theirs)
        proxy.end_all()  # or it waits for what is still open


@pytest.fixture
async def upstream() -> AsyncIterator[PatientUpstream]:
    async with run_patient_upstream() as upstream:
        yield upstream


@pytest.fixture
async def scene(stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    """Rounds are so rare that none of them finds anything."""
    async with open_scene(stage, upstream, http) as scene:
        yield scene


# Silences that every beat looks for.


async def test_a_revocation_behind_disabled_triggers_is_found_and_the_silence_said(scene: Scene) -> None:
    await scene.change(
        "ALTER TABLE api_keys DISABLE TRIGGER ALL; UPDATE api_keys SET status = 'revoked' WHERE id = {key}"
    )
    await scene.check_dead("key_revoked")
    assert not scene.proxy.heart.listener.proven.is_set()
    status, said = await scene.read_readiness()
    assert status == 503
    assert f"{TRIGGERS - 6} of {TRIGGERS} triggers" in said["faults"]["revocation"]
    assert "ENABLE ALWAYS" in said["faults"]["revocation"]
    await scene.check_good()  # by rows read anew
    await scene.change(ENABLE_ALL)
    await scene.wait_ready()
    assert await scene.call(scene.key) == 401
    assert await scene.call(scene.good) == 200


async def test_a_revocation_in_a_moment_of_deafness_is_found_when_the_listener_is_replaced(
    stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening: list[asyncpg.Connection] = []

    async def note(url: str, timeout_seconds: float, *, name: str) -> asyncpg.Connection:
        connection = await connect(url, timeout_seconds, name=name)
        listening.extend([connection] if name.endswith("listening") else [])
        return connection

    monkeypatch.setattr("proxy.listener.connect", note)
    async with open_scene(stage, upstream, http, heartbeat_seconds=0.25) as scene:
        proven_at = scene.proxy.heart.lease.proven_at
        while scene.proxy.heart.lease.proven_at == proven_at:
            await asyncio.sleep(0)
        await listening[0].execute(f"UNLISTEN {CHANNEL}")  # between two beats
        await scene.change("UPDATE api_keys SET status = 'revoked' WHERE id = {key}")
        await scene.wait_fault(f"no longer listens to {CHANNEL}")
        await scene.check_dead("key_revoked")
        await scene.wait_ready()
        await scene.check_good()
        assert len(listening) == 2


# Silences that no beat can see: the rounds find what they hid.

MUTE = "CREATE OR REPLACE FUNCTION {} RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
REVOKE = "UPDATE api_keys SET status = 'revoked' WHERE id = {key}; "
SILENCES = {
    "a trigger function that tells nothing": (MUTE.format("aegis_tell_key()") + REVOKE, "key_revoked"),
    "an owner's trigger function that tells nothing": (
        MUTE.format("aegis_tell_owner()") + "UPDATE owners SET disabled_at = now() WHERE subject = 'ada'",
        "owner_disabled",
    ),
    "triggers off and on again between two beats": (
        f"BEGIN; ALTER TABLE api_keys DISABLE TRIGGER ALL; {REVOKE}{ENABLE_ALL}; COMMIT",
        "key_revoked",
    ),
    "a deletion told by nobody": (
        MUTE.format("aegis_tell_key()") + "DELETE FROM api_keys WHERE id = {key}",
        "credential_invalid",
    ),
    "a truncation told by nobody": (
        MUTE.format("aegis_tell_all()") + MUTE.format("aegis_tell_key()") + "CREATE TEMP TABLE kept AS SELECT * FROM"
        " api_keys WHERE id <> {key}; CREATE TEMP TABLE secrets AS SELECT * FROM api_key_secrets WHERE key_id <> {key};"
        " BEGIN; TRUNCATE api_keys CASCADE; INSERT INTO api_keys SELECT * FROM kept; INSERT INTO api_key_secrets SELECT"
        " * FROM secrets; COMMIT",
        "credential_invalid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("silence", SILENCES)
async def test_what_escaped_the_news_is_found_by_the_next_round(
    silence: str, stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession
) -> None:
    sql, reason = SILENCES[silence]
    async with open_scene(stage, upstream, http, **EVERY_SECOND) as scene:
        assert await scene.call(scene.key) == 200
        heard = scene.proxy.heart.verifier._memory._news.sequence
        await scene.change(sql)
        await scene.check_dead(reason)
        assert scene.proxy.heart.verifier._memory._news.sequence == heard, "it was heard after all"
        assert scene.proxy.judge_trust() == "trusted"
        await scene.mine.wait_session_ended()
        await scene.check_good()


# Restores: older rows over living ones.


async def run_postgres_tool(tool: str, *arguments: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        find_binaries() / tool, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@dataclass(frozen=True, slots=True)
class Backup:
    """A dump of the database as it was; `restore` plays it over the living one in a single transaction."""

    stage: Stage
    path: Path
    before: str = ""

    async def restore(self) -> None:
        options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction")
        await run_postgres_tool("psql", *options, "-c", self.before, "-f", self.path, self.stage.database_url)


async def take_backup(stage: Stage, tmp_path: Path) -> Backup:
    """Of everything, to replace everything: tables are dropped and made anew."""
    backup = Backup(stage, tmp_path / "whole.sql")
    await run_postgres_tool("pg_dump", "--clean", "--if-exists", "-f", backup.path, stage.database_url)
    return backup


async def take_backup_of_rows(stage: Stage, tmp_path: Path) -> Backup:
    """Of the rows alone, to be copied in past every trigger; `ENABLE TRIGGER ALL` then leaves none ALWAYS."""
    tables = ("owners", "api_keys", "api_key_secrets", "legacy_digests")
    backup = Backup(stage, tmp_path / "rows.sql", f"TRUNCATE {', '.join(tables)} CASCADE")  # sign-ins go, too
    chosen = [f"--table={name}" for name in (*tables, "aegis_versions")]
    await run_postgres_tool(
        "pg_dump", "--data-only", "--disable-triggers", *chosen, "-f", backup.path, stage.database_url
    )
    return backup


async def test_tables_replaced_by_older_ones_bring_no_key_back_that_was_seen_dead(
    stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with open_scene(stage, upstream, http, **EVERY_SECOND) as scene:
        backup = await take_backup(stage, tmp_path)
        later = await stage.mint(scopes=SCOPES, owner="carol")
        assert await scene.call(later) == 200
        await scene.change("UPDATE api_keys SET status = 'revoked' WHERE id = {key}")
        await scene.check_dead("key_revoked")
        await backup.restore()
        assert (await stage.store.find_key(scene.key.summary.id)).status == "active"  # type: ignore[union-attr]
        while await scene.call(later) != 401:  # what was minted since the dump is gone, by the next round
            assert await scene.call(scene.key) == 401
        assert await scene.call(scene.key) == 401
        await scene.check_good()
        await stage.revoke_by_sql(scene.good)  # the new tables' triggers tell
        await scene.theirs.check_stream_ended(401, "key_revoked")


async def test_older_rows_copied_in_past_the_triggers_bring_no_key_back_and_cost_trust_until_they_stand(
    stage: Stage, scene: Scene, tmp_path: Path
) -> None:
    backup = await take_backup_of_rows(stage, tmp_path)
    await scene.change("UPDATE api_keys SET status = 'revoked' WHERE id = {key}")
    await scene.check_dead("key_revoked")
    await backup.restore()
    assert (await stage.store.find_key(scene.key.summary.id)).status == "active"  # type: ignore[union-attr]
    assert await scene.call(scene.key) == 401
    await scene.wait_fault(f"0 of {TRIGGERS} triggers")
    assert await scene.call(scene.key) == 401
    await scene.check_good()
    await stage.sql(ENABLE_ALL)
    await scene.wait_ready()
    assert await scene.call(scene.key) == 401
    assert await scene.call(scene.good) == 200


@dataclass(frozen=True, slots=True)
class Restored:
    """A scene in which `key` was narrowed, and then its older, wider row restored with everything else."""

    scene: Scene
    narrowed: MintedKey


@pytest.fixture(params=[EVERY_SECOND], ids=["frequent rounds"])
async def restored(
    request: pytest.FixtureRequest,
    stage: Stage,
    upstream: PatientUpstream,
    http: aiohttp.ClientSession,
    tmp_path: Path,
) -> AsyncIterator[Restored]:
    narrowed = await stage.mint(scopes=SCOPES, owner="carol")
    async with open_scene(stage, upstream, http, **request.param) as scene:
        backup = await take_backup(stage, tmp_path)
        for scopes in ("{agent:list}", "{workflow:list,agent:list}", "{workflow:list}"):  # the sequence goes on, too
            await stage.sql("UPDATE api_keys SET scopes = $2::text::text[] WHERE id = $1", narrowed.summary.id, scopes)
        while await may_run(scene, narrowed):
            pass
        await backup.restore()
        yield Restored(scene, narrowed)


async def may_run(scene: Scene, key: MintedKey) -> bool:
    answer = await scene.wire.post(key.token, form_call("aegis.workflow.run", {"name": "nightly-etl"}))
    return answer.status == 200 and "result" in await answer.json(content_type=None)


async def ask_reason(scene: Scene, key: MintedKey) -> str | None:
    answer = await scene.wire.post(key.token, {"jsonrpc": "2.0", "id": 1, "method": "ping"})
    said = await answer.json(content_type=None)
    return str(said["error"]["data"]["reason"]) if "error" in said else None


async def test_a_restored_row_that_allows_more_is_not_believed_at_once(restored: Restored) -> None:
    """It might be a replica that lags. It counts once it has stayed so for longer than any replica lags."""
    assert await ask_reason(restored.scene, restored.narrowed) in (None, "state_unknown")
    async with asyncio.timeout(GUARD_SECONDS):
        while await ask_reason(restored.scene, restored.narrowed) != "state_unknown":
            assert not await may_run(restored.scene, restored.narrowed)


async def test_a_revocation_after_a_restore_is_believed(restored: Restored) -> None:
    await restored.scene.stage.revoke_by_sql(restored.narrowed)
    async with asyncio.timeout(5):
        while await ask_reason(restored.scene, restored.narrowed) != "key_revoked":
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("restored", [{"revalidate_seconds": 60.0}], indirect=True, ids=["rare rounds"])
async def test_a_row_that_cannot_be_believed_delays_nobody_else_s_clean_up(restored: Restored) -> None:
    scene = restored.scene
    await scene.stage.sql("UPDATE api_keys SET name = 'told' WHERE id = $1", restored.narrowed.summary.id)
    await scene.change("UPDATE api_keys SET status = 'revoked' WHERE id = {key}")
    await scene.check_dead("key_revoked")
    async with asyncio.timeout(5):
        await scene.mine.wait_session_ended()


async def test_a_row_that_cannot_be_believed_ends_nothing_of_anybody_else(
    stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with open_scene(stage, upstream, http, **EVERY_SECOND) as scene:
        backup = await take_backup(stage, tmp_path)
        await scene.change("UPDATE api_keys SET scopes = '{workflow:run}' WHERE id = {key}")
        await scene.mine.check_stream_ended(404, None)
        await backup.restore()
        for _ in range(3):
            revalidated_at = scene.proxy.heart.revocation._revalidated_at
            while scene.proxy.heart.revocation._revalidated_at == revalidated_at:
                await asyncio.sleep(0.02)
        await scene.check_good()


# News that nobody should have sent.

UNKNOWN_OWNER = "00000000-0000-0000-0000-000000000000"


def form_forgeries(key_id: str) -> list[str]:
    """What any role of the database can say."""
    of_key = {"v": 1, "kind": "key", "key_id": key_id}
    messages: list[Any] = [
        None, [], 0, {}, {"kind": "key"}, {"kind": "key", "key_id": None}, {"kind": ["key"]}, {"kind": "tenant"},
        {"v": 99, "kind": "all"}, of_key, {**of_key, "version": 0}, {**of_key, "version": -1},
        {**of_key, "version": 2**80}, {**of_key, "version": "x"}, {**of_key, "v": 2}, {**of_key, "kind": "owner"},
        {**of_key, "key_id": key_id[:-1]}, {**of_key, "key_id": key_id + "\0"}, {**of_key, "key_id": "\ud800" * 12},
        {"kind": "owner", "owner_id": UNKNOWN_OWNER}, {"kind": "owner", "owner_id": UNKNOWN_OWNER.replace("-", "")},
        {"kind": "owner", "owner_id": key_id},
    ]  # fmt: skip
    texts = [json.dumps(message) for message in messages]
    return [*texts, "", "{", "what?", "[" * 7_999, "x" * 7_999, '{"kind": NaN}', "\x01", "é" * 3_000]


async def test_forged_news_refuses_nobody_and_hides_nothing(scene: Scene, stage: Stage) -> None:
    forger = await asyncpg.connect(stage.database_url)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="too long"):
        await forger.execute("SELECT pg_notify($1, $2)", CHANNEL, "x" * 8_000)
    forgeries = form_forgeries(scene.good.summary.id)
    for forged in [*forgeries, *reversed(forgeries)]:
        await forger.execute("SELECT pg_notify($1, $2)", CHANNEL, forged)
        assert await scene.call(scene.good) == 200
    async with forger.transaction():
        for forged in forgeries * 3:
            await forger.execute("SELECT pg_notify($1, $2)", CHANNEL, forged)
        await forger.execute(
            "SELECT pg_notify($1, json_build_object('kind', 'key', 'key_id', lpad(n::text, 12, 'k'))::text)"
            " FROM generate_series(1, 10000) AS n", CHANNEL,
        )  # fmt: skip
        await forger.execute("UPDATE api_keys SET status = 'revoked' WHERE id = $1", scene.key.summary.id)
    await forger.close()
    await scene.check_dead("key_revoked")
    assert scene.proxy.heart.listener.proven.is_set()
    await scene.check_good()


async def test_a_nonce_of_somebody_else_s_making_costs_nothing(scene: Scene, stage: Stage) -> None:
    """Nor may its channel be used to flood: what is not expected is not kept."""
    channel = f"aegis_beat_{scene.proxy.heart.instance.hex}"
    proven_at = scene.proxy.heart.lease.proven_at
    await stage.sql("SELECT pg_notify($1, n::text) FROM generate_series(1, 10000) AS n", channel)
    while scene.proxy.heart.lease.proven_at == proven_at:
        await asyncio.sleep(0.01)
    assert scene.proxy.heart.listener.fault is None
    await scene.check_good()


async def test_ten_thousand_revocations_in_one_statement_end_what_they_should_and_disturb_nobody(
    scene: Scene, stage: Stage
) -> None:
    await scene.change(
        "INSERT INTO api_keys (id, owner_id, name, scopes, created_by) SELECT lpad(n::text, 12, 'k'), owner_id,"
        " 'key ' || n, '{}', 'sql' FROM api_keys, generate_series(1, 10000) AS n WHERE id = {key}"
    )
    await stage.sql("UPDATE api_keys SET status = 'revoked' WHERE id <> $1", scene.good.summary.id)
    assert await scene.call(scene.good) == 200
    await scene.check_dead("key_revoked")
    assert await scene.call(scene.good) == 200
    receipts = "SELECT 1 FROM revocation_receipts"
    while len(await stage.database.fetch(receipts)) < 10_001:
        assert await scene.call(scene.good) == 200
    await scene.check_good()


# Clocks.


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_wall_clock_that_jumps_expires_nobody_and_revives_nobody(
    hours: int, scene: Scene, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_an_hour = "UPDATE api_keys SET expires_at = now() + $2 * interval '30 minutes' WHERE id = $1"
    alive, expired = await stage.mint(scopes=SCOPES), await stage.mint(scopes=SCOPES)
    assert await scene.call(alive) == await scene.call(expired) == 200
    await stage.sql(half_an_hour, alive.summary.id, 1)
    await stage.sql(half_an_hour, expired.summary.id, -1)
    while await scene.call(expired) != 401:
        pass
    tell_time = time.time
    monkeypatch.setattr(time, "time", lambda: tell_time() + hours * 3600)
    while "clock was set" not in (scene.proxy.heart.listener.fault or ""):
        assert [await scene.call(key) for key in (alive, expired, scene.good)] == [200, 401, 200]
    await scene.proxy.heart.listener.proven.wait()
    assert [await scene.call(key) for key in (alive, expired, scene.good)] == [200, 401, 200]
    assert scene.proxy.judge_trust() == "trusted"
    await scene.check_good()
