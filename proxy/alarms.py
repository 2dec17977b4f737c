"""What an owner should hear of at once: a secret of a key that has got out, by the look of it.  [io]

In go a replay of a secret whose time is over, and keys that stood where none belongs; out come a line in the log, an
event in the audit and a figure. Nothing is written before the secret is proven, by its fast tag at least: whoever knows
only a public id can make nobody worry. The same again, for the same key and address, is only counted for a while. The
request was refused already, and its answer does not wait for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final

from cachetools import TTLCache

from proxy.audit import Audit
from proxy.client_address import ClientAddress
from proxy.errors import DatabaseError
from proxy.failures import find_source
from proxy.identity import KeyId, OwnerId
from proxy.keys.legacy import LegacyToken
from proxy.keys.record import KeyRecord
from proxy.keys.token import Token
from proxy.logs import get_logger

log = get_logger("alarms")

QUIET_SECONDS: Final = 600.0  # a client that goes on with an old secret asks every few seconds, for weeks
MAX_TOLD: Final = 4_096
MAX_LOOKING: Final = (
    100  # keys whose owner is looked for at once; a flood of made-up ones costs one statement at a time
)


class Alarm(StrEnum):
    """The action of the audit event."""

    SECRET_REPLAYED = "secret.replayed"  # noqa: S105 - after its key was rotated, and the grace was over
    KEY_EXPOSED = "key.exposed"  # in a URL, where logs and histories keep it


class Alarms:
    """One instance per process. `find_proven` gives the record of a token whose fast tag fits; `count` hears each."""

    def __init__(
        self,
        *,
        audit: Audit,
        find_proven: Callable[[Token | LegacyToken], Awaitable[KeyRecord | None]],
        count: Callable[[Alarm], None],
        timer: Callable[[], float],
    ) -> None:
        self._audit = audit
        self._find_proven = find_proven
        self._count = count
        self._told: TTLCache[tuple[Alarm, KeyId, str], None] = TTLCache(MAX_TOLD, QUIET_SECONDS, timer)
        self._looking: set[asyncio.Task[None]] = set()

    def tell(
        self, alarm: Alarm, key_id: KeyId, owner_id: OwnerId, address: ClientAddress | None, request_id: str
    ) -> None:
        """The secret was proven. Waits for nothing."""
        self._count(alarm)
        source = find_source(address)
        if (alarm, key_id, source) in self._told:
            return
        self._told[alarm, key_id, source] = None
        log.warning(alarm.name.lower(), key_id=key_id, source=source, request_id=request_id)
        self._audit.note_event(alarm, key_id, owner_id, {"address": source}, request_id)

    def look_at(self, token: Token | LegacyToken, address: ClientAddress | None, request_id: str) -> None:
        """A key stood in a URL: if it is one, its owner is told. Waits for nothing."""
        if len(self._looking) >= MAX_LOOKING:
            log.warning("exposed_key_not_looked_at", request_id=request_id)
            return
        task = asyncio.get_running_loop().create_task(self._look(token, address, request_id))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, token: Token | LegacyToken, address: ClientAddress | None, request_id: str) -> None:
        try:
            record = await self._find_proven(token)
        except DatabaseError as error:
            log.warning("exposed_key_not_looked_at", request_id=request_id, error=str(error))
            return
        if record is not None:
            self.tell(Alarm.KEY_EXPOSED, record.id, record.owner.id, address, request_id)

    async def aclose(self) -> None:
        """Let what is being looked at be found, while the audit still takes it."""
        if self._looking:
            await asyncio.wait(self._looking)
