"""What a visitor finds: keys of every kind, and use that lies behind them."""

from __future__ import annotations

from datetime import timedelta

from proxy.keys.minting import MintedKey
from tests.console.visiting import Visitor
from tests.staging import Stage

HOSTILE = '<img src=x onerror="alert(1)"> "quoted" & long'


async def fill(visitor: Visitor) -> MintedKey:
    """A list as one finds it after a while, with every state and every hint in it, and its owner signed in. The key
    that is used now."""
    stage = visitor.stage
    await stage.mint("full-access", name="admin console", tier="enterprise")
    await stage.mint("developer", name="laptop", lifetime=timedelta(days=5))
    await stage.mint(scopes=("workflow:run:nightly-etl",), name="nightly etl", lifetime=timedelta(days=300))
    await stage.mint(
        scopes=("agent:list", "agent:read", "volume:read:v-1", "volume:list", "execution:read"), name="dashboards"
    )
    revoked = await stage.mint("read-only", name="old reports")
    await stage.revoke_by_sql(revoked)
    await stage.mint("read-only", name=HOSTILE)
    ended = await stage.mint("read-only", name="trial", lifetime=timedelta(days=7))
    await stage.sql("UPDATE api_keys SET expires_at = now() - interval '1 day' WHERE id = $1", ended.summary.id)
    paused = await stage.mint("execution", name="paused", lifetime=timedelta(days=90))
    await stage.sql("UPDATE api_keys SET status = 'disabled' WHERE id = $1", paused.summary.id)
    idle = await stage.mint("execution", name="backup", lifetime=timedelta(days=200))
    await note_use(stage, idle, "120 days")
    unused = await stage.mint("read-only", name="spare", lifetime=timedelta(days=200))
    await stage.sql(
        "UPDATE api_keys SET created_at = now() - interval '130 days' WHERE id = ANY($1)",
        [idle.summary.id, unused.summary.id],
    )
    key = await stage.mint("execution", name="ci", lifetime=timedelta(days=80))
    await note_use(stage, key, "3 minutes")
    await visitor.sign_in()
    return key


async def note_use(stage: Stage, key: MintedKey, ago: str) -> None:
    """The last one of a key's."""
    await stage.sql(
        "INSERT INTO key_last_uses (key_id, secret_version, at, address, user_agent, what, count)"
        " VALUES ($1, 1, now() - $2::text::interval, '203.0.113.7', 'claude-code/2.0', 'aegis.workflow.run', 412)",
        key.summary.id, ago,
    )  # fmt: skip


async def note_days(stage: Stage, key: MintedKey) -> None:
    """Use of the last weeks, some of it denied."""
    await stage.sql(
        "INSERT INTO key_usage (key_id, day, use, rule, scopes, allowed, count, last_at)"
        " SELECT $1, current_date - d, sha256(d::text::bytea), 'mcp/' || d % 3, ARRAY['workflow:run'],"
        " d % 5 > 0, d * 7 % 40 + 1, now()"
        " FROM generate_series(0, 25) d", key.summary.id,
    )  # fmt: skip
