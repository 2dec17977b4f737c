"""What stands in the audit, newest first: for the command line, and whoever else shows it.  [io]

In go whose events and which, out come events, a page at a time. Who may see them is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from proxy.database import Database

# An actor is `kind:name`, and the kind alone stands for all of its kind. Ids run with time; a batch comes a bit late.
READ: Final = """
SELECT id, at, actor, action, key_id, owner_id::text AS owner_id, before::text AS before, after::text AS after
  FROM audit_events
 WHERE ($1::text IS NULL OR key_id = $1)
   AND ($2::text IS NULL OR actor = $2 OR starts_with(actor, $2 || ':'))
   AND ($3::timestamptz IS NULL OR at >= $3)
   AND ($4::bigint IS NULL OR id < $4)
 ORDER BY id DESC LIMIT $5
"""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done to a key or owner, or that a request showed of one. `before`, `after`: what differs."""

    id: int
    at: datetime
    actor: str
    action: str
    key_id: str | None
    owner_id: str | None
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None


async def read_events(
    database: Database,
    *,
    key_id: str | None = None,
    actor: str | None = None,
    since: datetime | None = None,
    below: int | None = None,
    limit: int,
) -> list[Event]:
    """Those that are all of it, newest first. `below`: the id of the last one that is known. Raises DatabaseError."""
    rows = await database.fetch(READ, key_id, actor, since, below, limit)
    return [Event(**{**row, "before": _read(row["before"]), "after": _read(row["after"])}) for row in rows]


def _read(text: str | None) -> Mapping[str, object] | None:
    """Any role may have written the row: what is no object stands under `value`."""
    value = None if text is None else json.loads(text)
    return value if value is None or isinstance(value, dict) else {"value": value}
