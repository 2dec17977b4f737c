"""Keys as their owners look for them: one, or a page of many.  [io]

In go what a caller may see, what it looks for and where the last page ended; out come summaries, newest first. Whoever
may not see a key cannot tell it from one that does not exist. Pages go on from a key, not from a number, so that keys
made meanwhile shift nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.database import Database
from proxy.keys.record import Place
from proxy.keys.rights import View
from proxy.keys.store import STATUS, SUMMARY, KeySummary, form_summary

DESCENDANTS = """k.id IN (
    WITH RECURSIVE below AS (
        SELECT {0} AS id UNION SELECT c.id FROM below JOIN api_keys c ON c.parent_id = below.id
    ) SELECT id FROM below)"""


@dataclass(frozen=True, slots=True)
class Search:
    """Keys that meet all that is not None. `text`: part of a name or an id, in any case; `owner`: a subject."""

    statuses: tuple[str, ...] | None = None
    preset: str | None = None
    owner: str | None = None
    text: str | None = None


class _Conditions:
    """Conditions of this room's own, with their arguments. What is not asked for does not stand in the statement, so
    that the planner sees what does."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.arguments: list[object] = []

    def add(self, text: str, *arguments: object) -> None:
        """`text` has a place `{0}` for each argument."""
        numbers = [f"${len(self.arguments) + place}" for place in range(1, len(arguments) + 1)]
        self._texts.append(text.format(*numbers))
        self.arguments += arguments

    def add_view(self, view: View) -> None:
        if view.tenant_id is not None:
            self.add("o.tenant_id = {0}", view.tenant_id)
        if view.owner_id is not None:
            self.add("k.owner_id = {0}::uuid", view.owner_id)
        if view.root is not None:
            self.add(DESCENDANTS, view.root)

    def add_search(self, search: Search) -> None:
        if search.statuses is not None:
            self.add(f"{STATUS} = ANY ({{0}}::text[])", list(search.statuses))
        if search.preset is not None:
            self.add("k.preset = {0}", search.preset)
        if search.owner is not None:
            self.add("o.subject = {0}", search.owner)
        if search.text:
            self.add("(strpos(lower(k.name), lower({0})) > 0 OR strpos(lower(k.id), lower({0})) > 0)", search.text)

    def form(self) -> str:
        return f" WHERE {' AND '.join(self._texts)}" if self._texts else ""


async def list_keys(
    database: Database, view: View, search: Search, after: Place | None, limit: int
) -> list[KeySummary]:
    """So many at most, beginning behind that place. Raises DatabaseError."""
    conditions = _Conditions()
    conditions.add_view(view)
    conditions.add_search(search)
    if after is not None:
        conditions.add("(k.created_at, k.id) < ({0}, {1})", after.created_at, after.key_id)
    rows = await database.fetch(
        f"{SUMMARY}{conditions.form()} ORDER BY k.created_at DESC, k.id DESC LIMIT {limit}", *conditions.arguments
    )
    return [form_summary(row) for row in rows]


async def find_key(database: Database, view: View, key_id: str) -> KeySummary | None:
    """One of those that may be seen. Raises DatabaseError."""
    conditions = _Conditions()
    conditions.add_view(view)
    conditions.add("k.id = {0}", key_id)
    rows = await database.fetch(SUMMARY + conditions.form(), *conditions.arguments)
    return form_summary(rows[0]) if rows else None
