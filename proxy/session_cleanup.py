"""Ending upstream what dead keys left there.  [io]

In go key ids, out go DELETEs to the upstreams, with the upstream's own credential. Each session is claimed in Postgres
first, so one instance ends it; what could not be ended is left for the next round, a bounded number of times.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from proxy.errors import UnavailableError, UpstreamError
from proxy.forwarding import Destination
from proxy.identity import KeyId
from proxy.logs import get_logger
from proxy.session_store import DeadSession, SessionStore
from proxy.upstream import UpstreamAborted

log = get_logger("sessions")

# Ended; unknown already; a server that keeps no sessions to end (MCP 2025-11-25, "Session Management").
GONE = frozenset({200, 202, 204, 404, 405})
MAX_AT_ONCE = 16
# The version was the client's to name: one that is no token must not keep its session alive.
_VERSION = re.compile(r"[0-9A-Za-z._-]{1,64}")


class SessionCleanup:
    """`start` returns at once; the work goes on beside the judging, which must not wait for an upstream.

    `paths`: the MCP endpoint of each upstream.
    """

    def __init__(
        self,
        store: SessionStore,
        destinations: Mapping[str, Destination],
        *,
        paths: Mapping[str, str],
        timeout_seconds: float,
    ) -> None:
        self._store = store
        self._destinations = destinations
        self._paths = paths
        self._timeout_seconds = timeout_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    def start(self, key_ids: Sequence[KeyId] | None) -> None:
        """End the sessions of those of these keys (None: of all keys) that may no longer be used."""
        if key_ids is None or key_ids:
            task = asyncio.create_task(self._run(key_ids))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, key_ids: Sequence[KeyId] | None) -> None:
        try:
            claimed = await self._store.claim_dead(key_ids)
        except UnavailableError as error:
            log.warning("session_clean_up_failed", error=str(error))
        else:
            await asyncio.gather(*(self._end(session) for session in claimed))

    async def _end(self, session: DeadSession) -> None:
        async with self._slots:
            status = await self._send_delete(session)
        if status not in GONE:
            log.warning("session_not_ended", key_id=session.key_id, upstream=session.upstream, status=status)
            return
        log.info("session_ended", key_id=session.key_id, upstream=session.upstream, status=status)
        try:
            await self._store.forget(session.upstream, session.session_hash)
        except UnavailableError as error:
            log.warning("session_not_forgotten", error=str(error))  # the claim lapses: the next round tries again

    async def _send_delete(self, session: DeadSession) -> int | None:
        """The upstream's status; None when it gave none."""
        destination, path = self._destinations.get(session.upstream), self._paths.get(session.upstream)
        if destination is None or path is None:
            return None
        headers = [("Mcp-Session-Id", session.session_id), ("Accept", "application/json, text/event-stream")]
        if session.protocol_version and _VERSION.fullmatch(session.protocol_version):
            headers.append(("MCP-Protocol-Version", session.protocol_version))
        if destination.bearer_token is not None:
            headers.append(("Authorization", f"Bearer {destination.bearer_token}"))
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
