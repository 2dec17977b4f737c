"""Ending upstream what dead keys left there: what is sent, what counts as ended, and who does it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from proxy.database import Database
from proxy.forwarding import Destination
from proxy.identity import KeyId, Owner
from proxy.keys.store import KeyStore
from proxy.logs import configure_logging
from proxy.memory import KeyState
from proxy.sealing import Seal
from proxy.session_cleanup import MAX_AT_ONCE, SessionCleanup
from proxy.session_store import SessionStore, hash_session_id
from proxy.upstream import Upstream, parse_upstream_address
from proxy.upstream_identity import NO_IDENTITY, add_credential
from tests.clocks import ManualClock
from tests.hostile_origin import HostileOrigin, Peer, Script, answering
from tests.records import find_rights, make_record
from tests.staging import GUARD_SECONDS, Stage

DEAD, ALSO_DEAD = KeyId("Dead00000001"), KeyId("Dead00000002")  # keys that are no longer there
ATTEMPTS, IDLE_SECONDS = 3, 1_800.0
SESSION = "5e551011-0000-4000-8000-000000000001"


def form_answer(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


ENDED = answering(b"HTTP/1.1 204 No Content\r\n\r\n")


class Instance:
    """One proxy's clean-up, with a store and connections of its own."""

    def __init__(
        self,
        database: Database,
        port: int,
        *,
        bearer_token: str | None = None,
        base_path: str = "",
        timeout_seconds: float = GUARD_SECONDS,
    ) -> None:
        self.store = SessionStore(
            database,
            seal=Seal(b"the secret of all instances", "mcp-session"),
            instance=uuid4(),
            max_attempts=ATTEMPTS,
            idle_seconds=IDLE_SECONDS,
            timer=ManualClock().boot,
        )
        identity = NO_IDENTITY if bearer_token is None else add_credential(NO_IDENTITY, bearer_token)
        self.used: set[tuple[str, bytes]] = set()
        self.sweeps = 0
        self._keys = KeyStore(database)
        self.upstream = Upstream(parse_upstream_address(f"http://127.0.0.1:{port}"))
        self.cleanup = SessionCleanup(
            self.store,
            {"mcp": Destination(self.upstream, base_path, identity)},
            find_paths=lambda: {"mcp": "/mcp/v1"},
            timeout_seconds=timeout_seconds,
            read_rights=self._read_rights,
            find_used=self._find_used,
        )

    async def _read_rights(self, key_ids: Collection[KeyId]) -> dict[KeyId, tuple[Owner, frozenset[str]]]:
        """The rights of those that may be used: the keys' own scopes will do here."""
        records = (await self._keys.read_keys(list(key_ids))).values()
        return {
            record.id: (make_record(record.id).owner, find_rights(record))
            for record in records
            if record.find_fault(0.0) is None
        }

    def _find_used(self) -> set[tuple[str, bytes]]:
        self.sweeps += 1
        return self.used

    async def bind(
        self,
        *session_ids: str,
        key_id: KeyId = DEAD,
        version: str | None = "2025-11-25",
        upstream: str = "mcp",
        grants: tuple[str, ...] = ("agent:list",),
    ) -> None:
        principal = KeyState(key_id, make_record(key_id, scopes=grants), 0, 0.0).get_principal(1, find_rights)
        for session_id in session_ids:
            await self.store.bind(upstream, session_id, principal, version)

    async def clean(self, key_ids: list[KeyId] | None = None) -> None:
        """One round, to its end."""
        async with asyncio.timeout(GUARD_SECONDS):
            self.cleanup.start(key_ids)
            await self.cleanup.aclose()

    async def aclose(self) -> None:
        await self.cleanup.aclose()
        await self.upstream.aclose()


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with asyncio.timeout(2 * GUARD_SECONDS), AsyncExitStack() as stack:
        yield stack


class Scene:
    """An origin that plays a script, and instances that clean up there."""

    def __init__(self, stack: AsyncExitStack, database: Database) -> None:
        self._stack = stack
        self.database = database
        self.origin: HostileOrigin

    async def play(self, script: Script) -> None:
        self.origin = await self._stack.enter_async_context(HostileOrigin(script))

    def add_instance(
        self,
        *,
        bearer_token: str | None = None,
        base_path: str = "",
        timeout_seconds: float = GUARD_SECONDS,
        port: int | None = None,
    ) -> Instance:
        instance = Instance(
            self.database,
            self.origin.port if port is None else port,
            bearer_token=bearer_token,
            base_path=base_path,
            timeout_seconds=timeout_seconds,
        )
        self._stack.push_async_callback(instance.aclose)
        return instance

    async def let_claims_lapse(self) -> None:
        await self.database.fetch("UPDATE mcp_sessions SET claimed_until = now() - interval '1 second'")

    async def count_rows(self) -> int:
        return int((await self.database.fetch("SELECT count(*) AS n FROM mcp_sessions"))[0]["n"])

    def list_ended(self) -> list[str]:
        """The session ids of all DELETEs, in order."""
        return [parse_fields(request)["mcp-session-id"] for request in self.origin.requests]


@pytest.fixture
def scene(stack: AsyncExitStack, database: Database) -> Scene:
    return Scene(stack, database)


def parse_fields(request: bytes) -> dict[str, str]:
    """The header fields of a request, each of which stands there once."""
    lines = request.decode().removesuffix("\r\n\r\n").split("\r\n")[1:]
    pairs = [line.split(": ", 1) for line in lines]
    fields = {name.lower(): value for name, value in pairs}
    assert len(fields) == len(lines)
    return fields


# What is sent.


async def test_a_session_is_ended_by_id_and_version_and_with_the_upstream_s_own_credential(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance(bearer_token="the-upstream-s-own", base_path="/behind")
    await instance.bind(SESSION)
    await instance.clean()
    (request,) = scene.origin.requests
    assert request.startswith(b"DELETE /behind/mcp/v1 HTTP/1.1\r\n")
    assert parse_fields(request) == {
        "host": f"127.0.0.1:{scene.origin.port}",
        "mcp-session-id": SESSION,
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
        "authorization": "Bearer the-upstream-s-own",
    }


async def test_what_is_not_known_is_not_sent(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    await instance.bind(SESSION, version=None)
    await instance.clean()
    fields = parse_fields(scene.origin.requests[0])
    assert {"mcp-protocol-version", "authorization"}.isdisjoint(fields)


@pytest.mark.parametrize("version", ["\N{SNOWMAN}", "1\r\nX-Injected: 1", "a b", "", "v" * 65])
async def test_no_version_a_client_invents_keeps_its_session_alive(version: str, scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    await instance.bind(SESSION, version=version)
    await instance.clean()
    assert scene.list_ended() == [SESSION]
    assert "mcp-protocol-version" not in parse_fields(scene.origin.requests[0])
    assert await scene.count_rows() == 0


async def test_a_session_id_is_never_logged(scene: Scene) -> None:
    heard = io.BytesIO()
    configure_logging("debug", heard)
    await scene.play(answering(form_answer("500 Oops"), form_answer("200 OK")))
    instance = scene.add_instance()
    await instance.bind(SESSION)
    await instance.clean()
    await scene.let_claims_lapse()
    await instance.clean()
    lines = heard.getvalue().decode()
    assert "session_not_ended" in lines
    assert "session_ended" in lines
    assert DEAD in lines
    assert SESSION not in lines


# What counts as ended.


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "404 Not Found", "405 Method Not Allowed"])
async def test_a_session_that_is_gone_upstream_is_forgotten(status: str, scene: Scene) -> None:
    await scene.play(answering(form_answer(status)))
    instance = scene.add_instance()
    await instance.bind(SESSION)
    await instance.clean()
    assert await scene.count_rows() == 0
    await instance.clean()
    assert scene.list_ended() == [SESSION]


@pytest.mark.parametrize(
    "status",
    ["401 Unauthorized", "403 Forbidden", "302 Found", "429 Slow Down", "500 Oops", "503 Later"],
)
async def test_a_session_that_may_still_live_is_tried_again_a_bounded_number_of_times(
    status: str, scene: Scene
) -> None:
    await scene.play(answering(form_answer(status)))
    instance = scene.add_instance()
    await instance.bind(SESSION)
    for round_number in range(1, ATTEMPTS + 3):
        await instance.clean()
        assert len(scene.origin.requests) == min(round_number, ATTEMPTS)
        await instance.clean()
        assert len(scene.origin.requests) == min(round_number, ATTEMPTS), "the claim has not lapsed yet"
        await scene.let_claims_lapse()
    assert await scene.count_rows() == 1, "it stays on record"


async def test_a_version_the_server_refuses_is_left_out(scene: Scene) -> None:
    """It is the one the client proposed; the server may have settled on another."""
    await scene.play(answering(form_answer("400 Bad Request"), form_answer("200 OK")))
    instance = scene.add_instance()
    await instance.bind(SESSION)
    await instance.clean()
    assert await scene.count_rows() == 0
    assert [b"MCP-Protocol-Version" in request for request in scene.origin.requests] == [True, False]


async def test_a_later_round_succeeds_where_an_earlier_one_failed(scene: Scene) -> None:
    await scene.play(answering(form_answer("500 Oops"), b"garbage\r\n\r\n", form_answer("200 OK")))
    instance = scene.add_instance()
    await instance.bind(SESSION)
    for rows in (1, 1, 0):
        await instance.clean()
        assert await scene.count_rows() == rows
        await scene.let_claims_lapse()
    assert scene.list_ended() == [SESSION] * 3


async def test_an_upstream_that_does_not_answer_is_left_for_the_next_round(scene: Scene) -> None:
    gone = asyncio.Event()

    async def keep_silent(peer: Peer) -> None:
        await peer.read_request()
        await peer.wait_hang_up()
        gone.set()

    await scene.play(keep_silent)
    instance = scene.add_instance(timeout_seconds=0.1)
    await instance.bind(SESSION)
    await instance.clean()
    assert scene.list_ended() == [SESSION]
    assert await scene.count_rows() == 1
    await gone.wait()
    assert instance.upstream.active_connections == 0


async def test_an_upstream_that_is_not_there_is_left_for_the_next_round(scene: Scene, unused_tcp_port: int) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance(port=unused_tcp_port)
    await instance.bind(SESSION)
    await instance.clean()
    assert await scene.count_rows() == 1
    await scene.let_claims_lapse()
    await scene.add_instance().clean()
    assert scene.list_ended() == [SESSION]
    assert await scene.count_rows() == 0


async def test_a_session_of_an_upstream_no_longer_configured_stays_on_record(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    await instance.bind(SESSION, upstream="another")
    await instance.clean()
    assert scene.origin.requests == []
    assert await scene.count_rows() == 1


# Whose sessions.


async def test_only_dead_keys_lose_their_sessions(scene: Scene, stage: Stage) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    alive = await stage.mint(name="alive", scopes=("agent:list",))
    revoked = await stage.mint(name="revoked", scopes=("agent:list",))
    await instance.bind("of-the-living", key_id=KeyId(alive.summary.id))
    await instance.bind("of-the-revoked", key_id=KeyId(revoked.summary.id))
    await instance.clean()
    assert scene.list_ended() == []
    await stage.revoke_by_sql(revoked)
    await instance.clean([KeyId(alive.summary.id), KeyId(revoked.summary.id)])
    assert scene.list_ended() == ["of-the-revoked"]


@pytest.mark.parametrize("left", ["{agent:list}", "{}"])
async def test_a_key_that_lost_a_right_loses_the_sessions_made_under_it(left: str, scene: Scene, stage: Stage) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    key = await stage.mint(scopes=("agent:list", "workflow:run"))
    key_id = KeyId(key.summary.id)
    await instance.bind("under-both", key_id=key_id, grants=("agent:list", "workflow:run"))
    await instance.bind("under-one", key_id=key_id, grants=("agent:list",))
    await instance.clean([key_id])
    assert scene.list_ended() == []
    await stage.sql("UPDATE api_keys SET scopes = $1::text::text[]", left)
    await instance.clean([key_id])
    assert sorted(scene.list_ended()) == (["under-both"] if "agent" in left else ["under-both", "under-one"])


async def test_a_sweep_ends_what_nobody_has_used_for_long(scene: Scene, stage: Stage) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    key_id = KeyId((await stage.mint(scopes=("agent:list",))).summary.id)
    await instance.bind("idle", "in-use", key_id=key_id)
    await instance.clean()
    assert scene.list_ended() == []
    await scene.database.fetch("UPDATE mcp_sessions SET last_seen_at = now() - make_interval(secs => $1)", IDLE_SECONDS)
    instance.used = {("mcp", hash_session_id("in-use"))}
    await instance.clean()
    assert scene.list_ended() == ["idle"]


async def test_a_session_that_could_not_be_bound_is_ended_for_nobody_s_use(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    instance.cleanup.end_unbound("mcp", SESSION, "2025-11-25", DEAD)
    await instance.cleanup.aclose()
    assert scene.list_ended() == [SESSION]


async def test_orders_to_sweep_that_come_while_one_is_under_way_make_one_more(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    for _ in range(100):
        instance.cleanup.start(None)
    await instance.cleanup.aclose()
    assert instance.sweeps == 1
    instance.cleanup.start(None)
    await asyncio.sleep(0)
    assert instance.sweeps == 2
    for _ in range(100):
        instance.cleanup.start(None)
    await instance.cleanup.aclose()
    assert instance.sweeps == 3


async def test_only_the_named_keys_are_looked_at(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    await instance.bind("one", key_id=DEAD)
    await instance.bind("two", key_id=ALSO_DEAD)
    await instance.clean([ALSO_DEAD])
    assert scene.list_ended() == ["two"]
    await instance.clean([])
    assert scene.list_ended() == ["two"]
    await instance.clean()
    assert scene.list_ended() == ["two", "one"]


async def test_two_instances_end_each_session_once(scene: Scene) -> None:
    await scene.play(ENDED)
    one, other = scene.add_instance(), scene.add_instance()
    sessions = [f"session-{number:03d}" for number in range(40)]
    await one.bind(*sessions)
    await asyncio.gather(*(instance.clean(keys) for instance in (one, other) for keys in (None, [DEAD], None)))
    assert sorted(scene.list_ended()) == sessions
    assert await scene.count_rows() == 0


async def test_a_session_whose_claimant_died_half_way_is_ended_by_another(scene: Scene) -> None:
    await scene.play(ENDED)
    one, other = scene.add_instance(), scene.add_instance()
    await one.bind(SESSION)
    assert len(await one.store.claim_dead(sweep=True)) == 1
    await other.clean()
    assert scene.list_ended() == []
    await scene.let_claims_lapse()
    await other.clean()
    assert scene.list_ended() == [SESSION]
    assert await scene.count_rows() == 0


# How the work goes on.


async def test_starting_waits_for_no_upstream_and_closing_does(scene: Scene) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hesitate(peer: Peer) -> None:
        await peer.read_request()
        asked.set()
        await answer.wait()
        await peer.send(form_answer("200 OK"))

    await scene.play(hesitate)
    instance = scene.add_instance()
    await instance.bind(SESSION)
    instance.cleanup.start(None)
    await asked.wait()
    closing = asyncio.create_task(instance.cleanup.aclose())
    done, _ = await asyncio.wait({closing}, timeout=0)
    assert not done
    answer.set()
    await closing
    assert await scene.count_rows() == 0


async def test_an_upstream_is_asked_for_a_bounded_number_at_once(scene: Scene) -> None:
    many, crowded = asyncio.Event(), 0
    waiting = 0

    async def count(peer: Peer) -> None:
        nonlocal waiting, crowded
        while True:
            await peer.read_request()
            waiting += 1
            crowded = max(crowded, waiting)
            if waiting == MAX_AT_ONCE:
                many.set()
            await many.wait()
            waiting -= 1
            await peer.send(form_answer("200 OK"))

    await scene.play(count)
    instance = scene.add_instance()
    await instance.bind(*(f"session-{number}" for number in range(3 * MAX_AT_ONCE)))
    await instance.clean()
    assert crowded == MAX_AT_ONCE
    assert await scene.count_rows() == 0


async def test_one_row_that_cannot_be_forgotten_hurts_no_other_session(scene: Scene) -> None:
    """The others are still on their way upstream when the database refuses: they are ended, and waited for."""
    refused = asyncio.Event()

    async def answer_the_first_alone(peer: Peer) -> None:
        request = await peer.read_request()
        if parse_fields(request)["mcp-session-id"] != SESSION:
            await refused.wait()
        await peer.send(form_answer("200 OK"))

    await scene.play(answer_the_first_alone)
    instance = scene.add_instance()
    others = [f"session-{number}" for number in range(3)]
    await instance.bind(SESSION, *others)
    digest = hash_session_id(SESSION).hex()
    await scene.database.fetch(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'kept'; END $$"
    )
    await scene.database.fetch(
        "CREATE TRIGGER keep BEFORE DELETE ON mcp_sessions FOR EACH ROW"
        rf" WHEN (OLD.session_hash = '\x{digest}') EXECUTE FUNCTION keep()"
    )
    configure_logging("debug", Tripwire(refused, b"session_not_forgotten"))
    await instance.clean()
    assert sorted(scene.list_ended()) == sorted([SESSION, *others])
    assert await scene.count_rows() == 1


class Tripwire(io.BytesIO):
    """A log stream that tells when a line with certain words is written."""

    def __init__(self, event: asyncio.Event, words: bytes) -> None:
        super().__init__()
        self._event = event
        self._words = words

    def write(self, line: object) -> int:
        written = bytes(line)  # type: ignore[call-overload]
        if self._words in written:
            self._event.set()
        return super().write(written)


async def test_a_database_that_fails_costs_a_round_and_nothing_more(scene: Scene) -> None:
    await scene.play(ENDED)
    instance = scene.add_instance()
    await instance.bind(SESSION)
    await scene.database.fetch("ALTER TABLE mcp_sessions RENAME TO elsewhere")
    await instance.clean()
    assert scene.origin.requests == []
    await scene.database.fetch("ALTER TABLE elsewhere RENAME TO mcp_sessions")
    await instance.clean()
    assert scene.list_ended() == [SESSION]
