"""Ending upstream what dead keys left there.  [io]

In go key ids, out go DELETEs to the upstreams, with the upstream's own credential. Each session is claimed in Postgres
first, so one instance ends it; what could not be ended is left for the next round, a bounded number of times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping

from proxy.errors import DatabaseError, UnavailableError, UpstreamError
from proxy.forwarding import Destination
from proxy.identity import KeyId, Owner
from proxy.logs import get_logger
from proxy.session_store import VERSION, DeadSession, SessionOwner, SessionStore, hash_session_id
from proxy.upstream import UpstreamAborted

log = get_logger("sessions")

# Ended; unknown already; a server that keeps no sessions to end (MCP 2025-11-25, "Session Management").
GONE = frozenset({200, 202, 204, 404, 405})
BAD_REQUEST = 400
MAX_AT_ONCE = 16
# The owner and the rights of each of these keys that may be used now.
ReadRights = Callable[[Collection[KeyId]], Awaitable[Mapping[KeyId, tuple[Owner, frozenset[str]]]]]


def _is_good(made_by: SessionOwner, rights: Mapping[KeyId, tuple[Owner, frozenset[str]]]) -> bool:
    return made_by.key_id in rights and made_by.may_still(*rights[made_by.key_id])


class SessionCleanup:
    """`start` returns at once; the work goes on beside the judging, which must not wait for an upstream.

    `find_paths`: the MCP endpoint of each upstream. `find_used`: the sessions in use right now.
    """

    def __init__(
        self,
        store: SessionStore,
        destinations: Mapping[str, Destination],
        *,
        find_paths: Callable[[], Mapping[str, str]],
        timeout_seconds: float,
        read_rights: ReadRights,
        find_used: Callable[[], Collection[tuple[str, bytes]]],
    ) -> None:
        self._store = store
        self._destinations = destinations
        self._find_paths = find_paths
        self._timeout_seconds = timeout_seconds
        self._read_rights = read_rights
        self._find_used = find_used
        self._sweeping = False
        self._sweep_again = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    def start(self, key_ids: Collection[KeyId] | None) -> None:
        """End those sessions of these keys that they may no longer use; None: sweep, over all keys."""
        if key_ids is None:
            self._sweep_again = True
            if not self._sweeping:
                self._sweeping = True
                self._spawn(self._sweep())
        elif key_ids:
            self._spawn(self._end_lost(list(key_ids)))

    def end_unbound(self, upstream: str, session_id: str, protocol_version: str | None, key_id: KeyId) -> None:
        """End a session that could not be bound to its key, so that nobody ever uses it."""
        session = DeadSession(upstream, hash_session_id(session_id), session_id, protocol_version, key_id)
        self._spawn(self._end(session))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        """One sweep running, whatever asks for another meanwhile gets the next."""
        try:
            while self._sweep_again:
                self._sweep_again = False
                await self._store.note_used(self._find_used())
                await self._end_all(await self._store.claim_dead(sweep=True))
                await self._end_lost(await self._store.list_keys())
        except (UnavailableError, DatabaseError) as error:
            log.warning("session_sweep_failed", error=str(error))  # the next round tries again
        finally:
            self._sweeping = False

    async def _end_lost(self, key_ids: list[KeyId]) -> None:
        """Judge each session by its key as it is now: dead, or without a right the session was made under."""
        try:
            sessions = await self._store.list_made(key_ids)
            if sessions:
                rights = await self._read_rights({session.made_by.key_id for session in sessions})
                lost = [session for session in sessions if not _is_good(session.made_by, rights)]
                await self._end_all(await self._store.claim_dead(sweep=False, also=lost))
        except (UnavailableError, DatabaseError) as error:
            log.warning("session_clean_up_failed", error=str(error))  # a sweep finds those of dead keys later

    async def _end_all(self, sessions: list[DeadSession]) -> None:
        await asyncio.gather(*(self._end(session) for session in sessions))

    async def _end(self, session: DeadSession) -> None:
        async with self._slots:
            status = await self._send_delete(session)
        if status not in GONE:
            log.warning("session_not_ended", key_id=session.key_id, upstream=session.upstream, status=status)
            return
        log.info("session_ended", key_id=session.key_id, upstream=session.upstream, status=status)
        try:
            await self._store.forget_claimed(session)
        except UnavailableError as error:
            log.warning("session_not_forgotten", error=str(error))  # the claim lapses: the next round tries again

    async def _send_delete(self, session: DeadSession) -> int | None:
        """The upstream's status; None when it gave none. The version bound with the session is the one the client
        proposed: a server that settled on another may refuse it, and must then do without."""
        version = session.protocol_version
        if version and VERSION.fullmatch(version):
            status = await self._ask(session, [("MCP-Protocol-Version", version)])
            if status != BAD_REQUEST:
                return status
        return await self._ask(session, [])

    async def _ask(self, session: DeadSession, headers: list[tuple[str, str]]) -> int | None:
        destination, path = self._destinations.get(session.upstream), self._find_paths().get(session.upstream)
        if destination is None or path is None:
            return None
        headers += [("Mcp-Session-Id", session.session_id), ("Accept", "application/json, text/event-stream")]
        headers += destination.identity.form_own()
        call = destination.upstream.open()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return (await call.send("DELETE", destination.base_path + path, headers, b"")).status
        except (UpstreamError, UpstreamAborted, TimeoutError, ValueError) as error:
            log.warning("session_delete_failed", upstream=session.upstream, error=str(error) or type(error).__name__)
            return None
        finally:
            call.abort()

    async def aclose(self) -> None:
        """Wait for what is under way; each step has its own deadline."""
        if self._tasks:
            await asyncio.wait(self._tasks)
