"""Denials, for the audit: who was refused what, by which rule, and how often.  [io]

In go denials, one synchronous call for each; out go rows of `audit_events`, in batches. The same denial again only adds
to its count, and a key that is denied many different things fills its share and no more: what is beyond is counted.
Nothing of a request is written but what its denial says. Changes of keys are audited by `keys/store`, in their own
transactions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from proxy.clock import Clock
from proxy.database import Database
from proxy.errors import DeniedError
from proxy.flushing import WRITE_SECONDS, Flushing, Rows
from proxy.identity import KeyId, OwnerId
from proxy.logs import get_logger
from proxy.policy.scopes import show

log = get_logger("audit")

MAX_ROWS: Final = 200  # of one flush: at one every 10 s at most 1.7 million a day, and only while someone attacks
MAX_ROWS_OF_KEY: Final = 20
MAX_KEYS: Final = 1_000  # of which the rest is counted: with the rows above less than one batch of `flushing`
MAX_LISTED: Final = 20  # scopes of one row: a request may need as many as it names resources
MAX_WHY: Final = 1_000  # characters
WRITE = """
INSERT INTO audit_events (at, actor, action, key_id, owner_id, after)
SELECT to_timestamp(d.last_at), 'proxy:' || $1::uuid, 'request.denied', d.key_id, d.owner_id, d.after
  FROM fresh, jsonb_to_recordset($4::jsonb) AS d (last_at float8, key_id text, owner_id uuid, after jsonb)
 ORDER BY d.last_at
"""


@dataclass(slots=True)
class _Denials:
    """One row: what is the same of them, and what is counted."""

    key_id: KeyId
    said: Mapping[str, object]
    owner_id: OwnerId
    request_id: str
    last_at: float
    count: int = 0

    def form(self) -> dict[str, object]:
        after = {"count": self.count, **self.said, "request_id": self.request_id}
        return {"last_at": self.last_at, "key_id": self.key_id, "owner_id": self.owner_id, "after": after}


class Audit:
    """One instance per process. `run` it beside everything else, and `aclose` it when nobody is refused any more.

    `count_dropped` is told of denials that are written nowhere.
    """

    def __init__(
        self,
        database: Database,
        *,
        instance: UUID,
        clock: Clock,
        flush_seconds: float,
        count_dropped: Callable[[int], None],
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self._clock = clock
        self._count_dropped = count_dropped
        self._dropped = 0
        self._denials: dict[tuple[object, ...], _Denials] = {}
        self._rows_of: Counter[KeyId] = Counter()
        self._beyond: dict[KeyId, _Denials] = {}
        flushing = Flushing(
            database, self._take, write=WRITE, instance=instance, subject="denials", flush_seconds=flush_seconds,
            write_seconds=write_seconds,
        )  # fmt: skip
        self.run, self.flush, self.aclose = flushing.run, flushing.flush, flushing.aclose

    def note_denial(self, key_id: KeyId, owner_id: OwnerId, denial: DeniedError, request_id: str) -> None:
        """Remember it until the next flush; waits for nothing. `denial.data`: what `explanations.form_denial` made."""
        why = show(denial.detail, MAX_WHY)  # names what was asked for, and all that is missing
        subject = (key_id, denial.reason, (denial.data or {}).get("rule"), why)
        now = self._clock.wall()
        noted = self._denials.get(subject)
        if noted is None and len(self._denials) < MAX_ROWS and self._rows_of[key_id] < MAX_ROWS_OF_KEY:
            noted = self._denials[subject] = _Denials(key_id, _form_said(denial, why), owner_id, request_id, now)
            self._rows_of[key_id] += 1
        if noted is None:
            noted = self._find_beyond(key_id, owner_id, request_id, now)
        noted.count += 1
        noted.owner_id, noted.request_id, noted.last_at = owner_id, request_id, now

    def _find_beyond(self, key_id: KeyId, owner_id: OwnerId, request_id: str, now: float) -> _Denials:
        """The row that only counts what else this key was denied. The oldest such row gives way."""
        noted = self._beyond.get(key_id)
        if noted is None:
            if len(self._beyond) >= MAX_KEYS:
                oldest = self._beyond.pop(next(iter(self._beyond)))
                self._dropped += oldest.count
                self._count_dropped(oldest.count)
            noted = self._beyond[key_id] = _Denials(key_id, {"and_more": True}, owner_id, request_id, now)
        return noted

    def _take(self, _limit: int) -> Rows:
        rows = [denials.form() for denials in (*self._denials.values(), *self._beyond.values())]
        self._denials, self._rows_of, self._beyond = {}, Counter(), {}
        if self._dropped:
            log.warning("denials_dropped", count=self._dropped)
            self._dropped = 0
        return rows


def _form_said(denial: DeniedError, why: str) -> dict[str, object]:
    """Texts that came with the request are shortened, and hold nothing that a table or terminal would choke on."""
    explained = denial.data or {}
    smallest = explained.get("smallest_sufficient")
    return {
        "rule": explained.get("rule"),
        "reason": denial.reason.value,
        "required": _list(explained.get("required", ())),
        "missing": _list(explained.get("missing", ())),
        "smallest_sufficient": None if smallest is None else show(smallest, MAX_WHY),
        "why": why,
    }


def _list(scopes: Iterable[str]) -> list[str]:
    return [show(scope) for scope in tuple(scopes)[:MAX_LISTED]]
