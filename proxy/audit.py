"""What requests leave in the audit: denials, and what an owner should hear about a key; each with how often.  [io]

In go denials and events, one synchronous call for each; out go rows of `audit_events`, in batches. The same again only
adds to its row's count, and a key with much to tell fills its share and no more: what is beyond is counted. Nothing of
a request is written but what its denial or event says. Changes of keys and owners are audited where they are
made, in the same transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.clock import Clock
from proxy.errors import DeniedError
from proxy.flushing import Flusher, Flushing, Rows
from proxy.identity import KeyId, OwnerId
from proxy.logs import get_logger
from proxy.policy.scopes import show

log = get_logger("audit")

DENIED: Final = "request.denied"
# Of one flush and action, so that a flood of denials leaves room for what alarms: at one every 10 s at most 1.7 million
# a day, and only while someone attacks.
MAX_ROWS: Final = 200
MAX_ROWS_OF_KEY: Final = 20  # again of each action
MAX_BEYOND: Final = 1_000  # keys, and actions, of which the rest is counted
MAX_LISTED: Final = 20  # scopes of one row: a request may need as many as it names resources
MAX_WHY: Final = 1_000  # characters
WRITE = """
INSERT INTO audit_events (at, actor, action, key_id, owner_id, after)
SELECT to_timestamp(d.last_at), 'proxy:' || $1::uuid, d.action, d.key_id, d.owner_id, d.after
  FROM fresh, jsonb_to_recordset($4::jsonb) AS d (last_at float8, action text, key_id text, owner_id uuid, after jsonb)
 ORDER BY d.last_at
"""


@dataclass(slots=True)
class _Row:
    """What is the same each time, and what is counted."""

    action: str
    key_id: KeyId | None
    said: Mapping[str, object]
    owner_id: OwnerId | None = None
    request_id: str = ""
    last_at: float = 0.0
    count: int = 0

    def form(self) -> dict[str, object]:
        after = {"count": self.count, **self.said, "request_id": self.request_id}
        return {
            "last_at": self.last_at, "action": self.action, "key_id": self.key_id, "owner_id": self.owner_id,
            "after": after,
        }  # fmt: skip


class Audit:
    """One instance per process. `run` it beside everything else, and `aclose` it when no request is under way any more.

    `count_dropped` is told of what is written nowhere.
    """

    def __init__(self, flusher: Flusher, clock: Clock, count_dropped: Callable[[int], None]) -> None:
        self._clock = clock
        self._count_dropped = count_dropped
        self._dropped = 0
        self._rows: dict[tuple[object, ...], _Row] = {}
        self._rows_of: Counter[str | tuple[str, KeyId | None]] = Counter()  # an action, and a key in it
        self._beyond: dict[tuple[str, KeyId | None], _Row] = {}
        flushing = Flushing(flusher, self._take, subject="audit", write=WRITE)
        self.run, self.flush, self.aclose = flushing.run, flushing.flush, flushing.aclose

    def note_denial(self, key_id: KeyId | None, owner_id: OwnerId, denial: DeniedError, request_id: str) -> None:
        """Remember it until the next flush; waits for nothing. `denial.data`: what `explanations.form_denial` made.
        `key_id` None: of whoever signed in without one."""
        why = show(denial.detail, MAX_WHY)  # names what was asked for, and all that is missing
        subject = (denial.reason, (denial.data or {}).get("rule"), why)
        self._note(DENIED, key_id, subject, lambda: _form_said(denial, why), owner_id, request_id)

    def note_event(
        self, action: str, key_id: KeyId, owner_id: OwnerId | None, said: Mapping[str, str | int], request_id: str
    ) -> None:
        """Remember something else that a request showed about its key, until the next flush; waits for nothing.

        `action`: one of a few constants, such as `key.exposed`. `said`: what tells one from another, and never a
        secret; what came with the request is shortened and made printable here.
        """
        shown = {name: show(value, MAX_WHY) if isinstance(value, str) else value for name, value in said.items()}
        self._note(action, key_id, tuple(shown.items()), lambda: shown, owner_id, request_id)

    def _note(
        self, action: str, key_id: KeyId | None, subject: tuple[object, ...],
        form_said: Callable[[], Mapping[str, object]], owner_id: OwnerId | None, request_id: str,
    ) -> None:  # fmt: skip
        """Count it in its row. `subject`: what the same has in common, beside action and key."""
        row = self._rows.get((action, key_id, *subject))
        if row is None and self._rows_of[action] < MAX_ROWS and self._rows_of[action, key_id] < MAX_ROWS_OF_KEY:
            row = self._rows[action, key_id, *subject] = _Row(action, key_id, form_said())
            self._rows_of.update((action, (action, key_id)))
        if row is None:
            row = self._find_beyond(action, key_id)
        row.count += 1
        row.owner_id, row.request_id, row.last_at = owner_id, request_id, self._clock.wall()

    def _find_beyond(self, action: str, key_id: KeyId | None) -> _Row:
        """The row that only counts what else of this kind there is about the key. The oldest such row gives way."""
        row = self._beyond.get((action, key_id))
        if row is None:
            if len(self._beyond) >= MAX_BEYOND:
                oldest = self._beyond.pop(next(iter(self._beyond)))
                self._dropped += oldest.count
                self._count_dropped(oldest.count)
            row = self._beyond[action, key_id] = _Row(action, key_id, {"and_more": True})
        return row

    def _take(self, _limit: int) -> Rows:
        rows = [row.form() for row in (*self._rows.values(), *self._beyond.values())]
        self._rows, self._rows_of, self._beyond = {}, Counter(), {}
        if self._dropped:
            log.warning("audit_dropped", count=self._dropped)
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
