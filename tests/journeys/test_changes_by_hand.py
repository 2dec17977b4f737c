"""Changes typed into the database by hand: each ends what it no longer allows, says why, and touches nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from proxy.keys.minting import MintedKey
from proxy.keys.token import SECRET_LENGTH, draw, fast_tag, form_token
from proxy.server import Proxy
from tests.patient_upstream import BROKEN, Open, PatientUpstream, open_all, read_error, run_patient_upstream
from tests.staging import GUARD_SECONDS, Stage, Wire, form_call, get_mcp_url

SCOPES = ("workflow:run", "agent:deploy", "workflow:list")  # the tier `free` lacks the second


@pytest.fixture
async def upstream() -> AsyncIterator[PatientUpstream]:
    async with run_patient_upstream() as upstream:
        yield upstream


# The scene: a key made from another one, a bystander of another owner, and an owner with nothing to do with either.


@dataclass(frozen=True, slots=True)
class Scene:
    stage: Stage
    proxy: Proxy
    wire: Wire
    upstream: PatientUpstream
    key: MintedKey
    parent: MintedKey

    async def change(self, sql: str) -> None:
        await self.stage.sql(sql.format(key=f"'{self.key.summary.id}'", parent=f"'{self.parent.summary.id}'"))

    async def open(self, name: str, token: str) -> Open:
        return await open_all(name, token, self.wire, self.upstream)

    async def ask(self) -> str | None:
        """Why the key may not list workflows; None when it may."""
        answer = await self.wire.post(self.key.token, form_call("aegis.workflow.list"))
        said = await answer.json(content_type=None)
        return None if "result" in said else read_error(said)

    def count_news(self) -> int:
        return self.proxy.heart.verifier._memory._news.sequence


ADOPT = """
CREATE TEMP TABLE secrets AS SELECT * FROM api_key_secrets WHERE key_id = '{key}';
CREATE TEMP TABLE child AS SELECT * FROM api_keys WHERE id = '{key}';
DELETE FROM api_keys WHERE id = '{key}';
UPDATE child SET parent_id = '{parent}';
INSERT INTO api_keys SELECT * FROM child;
INSERT INTO api_key_secrets SELECT * FROM secrets
"""


@contextlib.asynccontextmanager
async def open_scene(stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    parent, key = [await stage.mint(scopes=SCOPES, name=name) for name in ("parent", "key")]
    await stage.mint(owner="eve")
    await stage.sql(ADOPT.format(key=key.summary.id, parent=parent.summary.id))  # a parent is for life, from birth
    async with stage.proxy(upstream.url, revocation={"revalidate_seconds": 1.0}) as proxy:
        async with asyncio.timeout(GUARD_SECONDS):
            yield Scene(stage, proxy, Wire(http, get_mcp_url(proxy)), upstream, key, parent)
        proxy.end_all()  # or it waits for what is still open


@pytest.fixture
async def scene(stage: Stage, upstream: PatientUpstream, http: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    async with open_scene(stage, upstream, http) as scene:
        yield scene


# Whatever kills a key ends everything, and its sessions upstream.

OF_KEY, OF_PARENT = "UPDATE api_keys SET {} WHERE id = {{key}}", "UPDATE api_keys SET {} WHERE id = {{parent}}"
OF_OWNER = "UPDATE owners SET {} WHERE subject = 'ada'"
OF_SECRET = "UPDATE api_key_secrets SET {} WHERE key_id = {{key}}"
AS_REPLICA = "SET session_replication_role = replica; "
AT_AN_INSTANT = "expires_at = clock_timestamp() + interval '0.3 s'"

DEATHS = {
    "revoked": (OF_KEY.format("status = 'revoked'"), "key_revoked"),
    "revoked as a replica": (AS_REPLICA + OF_KEY.format("status = 'revoked'"), "key_revoked"),
    "disabled": (OF_KEY.format("status = 'disabled'"), "key_disabled"),
    "expired": (OF_KEY.format("expires_at = now()"), "key_expired"),
    "expired since ever": (OF_KEY.format("expires_at = '-infinity'"), "key_expired"),
    "expiring at an instant": (OF_KEY.format(AT_AN_INSTANT), "key_expired"),
    "deleted": ("DELETE FROM api_keys WHERE id = {key}", "credential_invalid"),
    "parent revoked": (OF_PARENT.format("status = 'revoked'"), "key_revoked"),
    "parent disabled": (OF_PARENT.format("status = 'disabled'"), "key_disabled"),
    "parent expired": (OF_PARENT.format("expires_at = now()"), "key_expired"),
    "parent expiring at an instant": (OF_PARENT.format(AT_AN_INSTANT), "key_expired"),
    "owner disabled": (OF_OWNER.format("disabled_at = now()"), "owner_disabled"),
}


@pytest.mark.parametrize("death", DEATHS)
async def test_what_kills_a_key_ends_everything_it_has_open_and_tells_why(
    death: str, scene: Scene, stage: Stage
) -> None:
    sql, reason = DEATHS[death]
    mine = await scene.open("mine", scene.key.token)
    theirs = await scene.open("theirs", (await stage.mint(owner="bob")).token)
    await scene.change(sql)
    await mine.check_calls_ended(reason)
    await mine.check_stream_ended(401, reason)
    await mine.wait_upstream()
    await mine.wait_session_ended()
    await theirs.check_flowing("stream", "events", "silence")
    assert scene.upstream.deleted == ["mine"]


async def test_a_truncated_table_ends_everything_of_everybody(scene: Scene, stage: Stage) -> None:
    opened = [
        await scene.open("mine", scene.key.token),
        await scene.open("theirs", (await stage.mint(owner="bob")).token),
    ]
    await scene.change("TRUNCATE api_keys CASCADE")
    for one in opened:
        await one.check_calls_ended("credential_invalid")
        await one.check_stream_ended(401, "credential_invalid")
        await one.wait_upstream()
        await one.wait_session_ended()


# A key that lost rights: what rested on them ends. The session was made under all of them.

NARROWINGS = {
    "scopes": OF_KEY.format("scopes = '{{agent:list}}'"),
    "scopes gone": OF_KEY.format("scopes = '{{}}'"),
    "parent narrowed": OF_PARENT.format("scopes = '{{agent:list}}'"),
    "tier nobody knows": OF_OWNER.format("tier = 'a tier the policy does not name'"),
}


@pytest.mark.parametrize("narrowing", NARROWINGS)
async def test_what_takes_the_right_to_a_call_ends_it_and_the_session(
    narrowing: str, scene: Scene, stage: Stage
) -> None:
    mine = await scene.open("mine", scene.key.token)
    theirs = await scene.open("theirs", (await stage.mint(owner="bob")).token)
    await scene.change(NARROWINGS[narrowing])
    await mine.check_calls_ended("rights_changed")
    await mine.check_stream_ended(404, None)
    await mine.wait_upstream()
    await mine.wait_session_ended()
    await theirs.check_flowing("stream", "events", "silence")
    assert scene.upstream.deleted == ["mine"]


OTHER_RIGHTS = {
    "scopes": OF_KEY.format("scopes = '{{workflow:run}}'"),
    "parent narrowed": OF_PARENT.format("scopes = '{{workflow:run}}'"),
    "tier": OF_OWNER.format("tier = 'free'"),
}


@pytest.mark.parametrize("narrowing", OTHER_RIGHTS)
async def test_what_takes_another_right_ends_the_session_and_no_call(
    narrowing: str, scene: Scene, stage: Stage
) -> None:
    mine = await scene.open("mine", scene.key.token)
    await scene.change(OTHER_RIGHTS[narrowing])
    await mine.check_stream_ended(404, None)
    await mine.wait_session_ended()
    await mine.wait_upstream("events", "silence")
    await mine.check_flowing("events", "silence")


# A key in other hands: what was begun for one owner is not for the next.

OTHER_HANDS = {
    "another owner": OF_KEY.format("owner_id = (SELECT id FROM owners WHERE subject = 'eve')"),
    "another tenant": OF_OWNER.format("tenant_id = 'elsewhere'"),
}


@pytest.mark.parametrize("hands", OTHER_HANDS)
async def test_a_key_in_other_hands_loses_what_was_open(hands: str, scene: Scene, stage: Stage) -> None:
    mine = await scene.open("mine", scene.key.token)
    theirs = await scene.open("theirs", (await stage.mint(owner="bob")).token)
    await scene.change(OTHER_HANDS[hands])
    await mine.check_calls_ended("rights_changed")
    with contextlib.suppress(*BROKEN):
        await mine.stream.read()
    await mine.wait_upstream()
    await theirs.check_flowing("stream", "events", "silence")
    assert await scene.wire.call(mine.token, "aegis.workflow.list") == 200, "the key itself is good"


@pytest.mark.parametrize("hands", OTHER_HANDS)
async def test_a_key_in_other_hands_loses_its_session_too(hands: str, scene: Scene) -> None:
    mine = await scene.open("mine", scene.key.token)
    await scene.change(OTHER_HANDS[hands])
    await mine.check_stream_ended(404, None)
    await mine.wait_session_ended()


# Rotation: a key with two secrets.

ROTATED_OUT = {
    "past its grace": OF_SECRET.format("not_after = now()") + " AND version = 1",
    "deleted": "DELETE FROM api_key_secrets WHERE key_id = {key} AND version = 1",
    "at the instant": OF_SECRET.format("not_after = clock_timestamp() + interval '0.3 s'") + " AND version = 1",
}


async def rotate(stage: Stage, key: MintedKey) -> str:
    """A second secret, as a rotation writes it; its token."""
    token = form_token(key.summary.id, draw(SECRET_LENGTH, lambda alphabet: alphabet[7]))  # type: ignore[arg-type]
    stage.note_secret(token.text)
    await stage.sql(
        "INSERT INTO api_key_secrets (key_id, version, tag, hash) VALUES ($1, 2, $2, $3)",
        token.key_id, fast_tag(token.key_id, token.secret), await stage.hasher.hash(token.secret),
    )  # fmt: skip
    return token.text


@pytest.mark.parametrize("rotation", ROTATED_OUT)
async def test_a_retired_secret_ends_what_was_opened_with_it_and_nothing_of_the_new_one(
    rotation: str, scene: Scene, stage: Stage
) -> None:
    new_token = await rotate(stage, scene.key)
    old, new = await scene.open("old", scene.key.token), await scene.open("new", new_token)
    await scene.change(ROTATED_OUT[rotation])
    await old.check_calls_ended("secret_retired")
    await old.check_stream_ended(401, "secret_retired")
    await old.wait_upstream()
    await new.check_flowing("stream", "events", "silence")
    ping = {"jsonrpc": "2.0", "id": 5, "method": "ping"}
    assert (await scene.wire.post(new_token, ping, **old.session)).status == 200, "a session is its key's"


async def test_a_key_without_secrets_opens_nothing(scene: Scene, stage: Stage) -> None:
    mine = await scene.open("mine", scene.key.token)
    await scene.change("DELETE FROM api_key_secrets WHERE key_id = {key}")
    await mine.check_calls_ended("secret_retired")
    await mine.check_stream_ended(401, "secret_retired")
    await mine.wait_upstream()


# What takes nothing away ends nothing.

HARMLESS = {
    "constraints": OF_KEY.format("""constraints = '{{"max_calls": 1000, "requests_per_second": 1000}}'"""),
    "name": OF_KEY.format("name = 'renamed', preset = NULL, created_by = 'other'"),
    "later expiry": OF_KEY.format("expires_at = 'infinity'"),
    "wider scopes": OF_KEY.format("scopes = '{{*}}'"),
    "parent wider": OF_PARENT.format("scopes = '{{*}}'"),
    "owner's issuer": OF_OWNER.format("issuer = 'elsewhere'"),
    "owner's subject": OF_OWNER.format("subject = 'ada lovelace'"),
    "hash made anew": OF_SECRET.format("created_at = now()"),
    "another key of the owner": "UPDATE api_keys SET name = name || '!' WHERE id <> {key}",
}


@pytest.mark.parametrize("change", HARMLESS)
async def test_what_takes_nothing_away_ends_nothing(change: str, scene: Scene, stage: Stage) -> None:
    mine = await scene.open("mine", scene.key.token)
    heard = scene.count_news()
    await scene.change(HARMLESS[change])
    while scene.count_news() == heard:
        await asyncio.sleep(0.01)
    await mine.check_flowing("stream", "events", "silence")
    assert scene.upstream.deleted == []


# Rows with values nobody means: the key is admitted or not, and nobody else notices.

GOOD, DENIED = None, "message_denied"
ABSURD = {
    "ends never": (OF_KEY.format("expires_at = 'infinity'"), GOOD),
    "constraints nobody knows": (
        OF_KEY.format("""constraints = '{{"addresses": ["192.0.2.0/24"]}}'"""),
        "key_disabled",
    ),
    "constraints of another shape": (OF_KEY.format("constraints = '[null]'"), "key_disabled"),
    "constraints beyond all numbers": (
        OF_KEY.format("constraints = ('{{\"max_calls\": 1' || repeat('0', 5000) || '}}')::jsonb"),
        "key_disabled",
    ),
    "constraints without a floor": (
        OF_KEY.format("constraints = (repeat('[', 3000) || repeat(']', 3000))::jsonb"),
        "key_disabled",
    ),
    "parent's constraints nobody knows": (OF_PARENT.format("constraints = 'null'"), "key_disabled"),
    "ends in the last year there is": (OF_KEY.format("expires_at = '294276-12-31'"), GOOD),
    "ended before the first": (OF_KEY.format("expires_at = '-infinity'"), "key_expired"),
    "ended when time began": (OF_KEY.format("expires_at = '4713-01-01 BC'"), "key_expired"),
    "secret ends never": (OF_SECRET.format("not_after = 'infinity'"), GOOD),
    "secret ended before the first": (OF_SECRET.format("not_after = '-infinity'"), "secret_retired"),
    "ten thousand scopes nobody knows": (
        OF_KEY.format("scopes = (SELECT array_agg('scope:' || n) FROM generate_series(1, 10000) AS n)"),
        DENIED,
    ),
    "scopes of odd text": (
        OF_KEY.format(
            r"scopes = ARRAY['', ':', '::', 'workflow:list\0', E'workflow:list\n', 'WORKFLOW:LIST', 'workflow:list:',"
            r" ' workflow:list', 'workflow:list ', 'workflow :list', E'\U0001F511', E'workflow:list\u200b', '**',"
            r" '*:*', 'workflow:*', repeat('x', 1000000)]"
        ),
        DENIED,
    ),
    "odd text beside a good scope": (
        OF_KEY.format(r"scopes = ARRAY['workflow:list', '', E'\u202e', repeat(':', 100000)]"),
        GOOD,
    ),
    "a hash of a megabyte": (OF_SECRET.format("hash = repeat('x', 1000000)"), "credential_invalid"),
    "a hash of a gigabyte's work": (
        OF_SECRET.format("hash = '$argon2id$v=19$m=1048576,t=64,p=1$c2FsdHNhbHQ$aGFzaGhhc2g'"),
        "credential_invalid",
    ),
    "a hash that is empty": (OF_SECRET.format("hash = ''"), "credential_invalid"),
    "a hash of another secret": (
        OF_SECRET.format("hash = replace(hash, '$argon2id$', '$argon2i$')"),
        "credential_invalid",
    ),
    "a tier nobody knows": (OF_OWNER.format(r"tier = repeat(E'\u0007', 100000)"), DENIED),
    "a tenant of odd text": (
        OF_OWNER.format(r"tenant_id = repeat(E'\n', 100000), subject = E'\r\nX-Admin: yes'"),
        GOOD,
    ),
    "a version from the end of all": (OF_KEY.format("version = 9223372036854775807"), GOOD),
}


@pytest.mark.parametrize("absurdity", ABSURD)
async def test_an_absurd_row_is_judged_for_what_it_says_and_disturbs_nobody(
    absurdity: str, scene: Scene, stage: Stage
) -> None:
    sql, reason = ABSURD[absurdity]
    theirs = await scene.open("theirs", (await stage.mint(owner="bob")).token)
    assert await scene.ask() is GOOD
    heard = scene.count_news()
    await scene.change(sql)
    while scene.count_news() == heard:
        await asyncio.sleep(0.01)
    assert await scene.ask() == reason, "to the proxy that remembers the key"
    async with stage.proxy(scene.upstream.url) as newcomer:
        scene_of_newcomer = dataclasses.replace(scene, wire=dataclasses.replace(scene.wire, url=get_mcp_url(newcomer)))
        assert await scene_of_newcomer.ask() == reason, "to one that does not"
    await theirs.check_flowing("stream", "events", "silence")
    assert scene.proxy.heart.listener.fault is None


async def test_a_tag_that_does_not_fit_the_hash_lets_nobody_in_who_is_not_in_already(
    scene: Scene, stage: Stage, upstream: PatientUpstream
) -> None:
    assert await scene.ask() is GOOD
    await scene.change(OF_SECRET.format("tag = '\\x00000000'"))
    async with stage.proxy(upstream.url) as newcomer:
        newly = dataclasses.replace(scene, wire=dataclasses.replace(scene.wire, url=get_mcp_url(newcomer)))
        assert await newly.ask() == "credential_invalid"


async def test_the_last_version_a_secret_can_have_opens_a_session_like_any_other(
    scene: Scene, upstream: PatientUpstream
) -> None:
    await scene.change(OF_SECRET.format("version = 2147483647"))
    mine = await scene.open("mine", scene.key.token)
    await scene.change(OF_SECRET.format("not_after = now()"))
    await mine.check_stream_ended(401, "secret_retired")


async def test_ten_thousand_scopes_with_selectors_hold_up_nobody(scene: Scene, stage: Stage) -> None:
    theirs = await scene.open("theirs", (await stage.mint(owner="bob")).token)
    many = "SELECT array_agg('workflow:run:' || n) FROM generate_series(1, 10000) AS n"
    await scene.change(OF_KEY.format(f"scopes = ({many}) || '{{{{workflow:list}}}}'"))
    assert await scene.ask() is GOOD
    await theirs.check_flowing("stream", "events", "silence")


async def test_a_key_that_ends_in_the_last_year_there_is_can_be_listed_and_revoked(scene: Scene, stage: Stage) -> None:
    await scene.change(OF_KEY.format("expires_at = '294276-12-31'"))
    assert len(await stage.store.list_keys()) == 3
    revoked = await stage.store.revoke_key(scene.key.summary.id, actor="test")
    assert revoked is not None
    assert revoked.status == "revoked"
