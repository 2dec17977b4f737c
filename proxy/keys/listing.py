"""Keys as their owners look for them: one, or a page of many.  [io]

In go what a caller may see, what it looks for and where the last page ended; out come summaries, newest first. Whoever
may not see a key cannot tell it from one that does not exist. Pages go on from a key, not from a number, so that keys
made meanwhile shift nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.database import Database
from proxy.keys.record import Place
from proxy.keys.rights import View
from proxy.keys.store import SUMMARY, KeySummary, form_summary
from proxy.keys.token import PREFIX

DESCENDANTS = """k.id IN (
    WITH RECURSIVE below AS (
        SELECT {0} AS id UNION SELECT c.id FROM below JOIN api_keys c ON c.parent_id = below.id
    ) SELECT id FROM below)"""

# What `SUMMARY` shows as a status, taken apart, so that the planner knows how many keys there are of each.
STATUSES: Final[Mapping[str, str]] = {
    "active": "(k.status = 'active' AND o.disabled_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now()))",
    "expired": "(k.status = 'active' AND o.disabled_at IS NULL AND k.expires_at <= now())",
    "disabled": "k.status = 'disabled'",
    "revoked": "k.status = 'revoked'",
}


@dataclass(frozen=True, slots=True)
class Search:
    """Keys that meet all that is not None. `statuses`: of `STATUSES`, one at least; `text`: part of a name or an id, in
    any case, the latter also as it is shown; `owner`: a subject."""

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
            self.add(f"({' OR '.join(STATUSES[status] for status in search.statuses)})")
        if search.preset is not None:
            self.add("k.preset = {0}", search.preset)
        if search.owner is not None:
            self.add("o.subject = {0}", search.owner)
        if search.text:
            wanted = "(strpos(lower(k.name), lower({0})) > 0 OR strpos(lower(k.id), lower({1})) > 0)"
            self.add(wanted, search.text, _find_id(search.text))

    def form(self) -> str:
        return f" WHERE {' AND '.join(self._texts)}" if self._texts else ""


def _find_id(text: str) -> str:
    """What of a text may be part of an id: pages and logs show ids behind the prefix of the token."""
    shown = text.strip()
    bare = shown[len(PREFIX) :] if shown.lower().startswith(PREFIX) else shown
    return bare or text


async def list_keys(
    database: Database, view: View, search: Search, after: Place | None, limit: int
) -> list[KeySummary]:
    """So many at most, beginning behind that place. Raises DatabaseError."""
    statement, arguments = form_statement(view, search, after, limit)
    return [form_summary(row) for row in await database.fetch(statement, *arguments)]


def form_statement(view: View, search: Search, after: Place | None, limit: int) -> tuple[str, list[object]]:
    """What reads a page, in the order of `api_keys_owner_age` or `api_keys_age`; and its arguments."""
    conditions = _Conditions()
    conditions.add_view(view)
    conditions.add_search(search)
    if after is not None:
        conditions.add("(k.created_at, k.id) < ({0}, {1})", after.created_at, after.key_id)
    statement = f"{SUMMARY}{conditions.form()} ORDER BY k.created_at DESC, k.id DESC LIMIT {limit:d}"
    return statement, conditions.arguments


async def find_key(database: Database, view: View, key_id: str) -> KeySummary | None:
    """One of those that may be seen. Raises DatabaseError."""
    conditions = _Conditions()
    conditions.add_view(view)
    conditions.add("k.id = {0}", key_id)
    rows = await database.fetch(SUMMARY + conditions.form(), *conditions.arguments)
    return form_summary(rows[0]) if rows else None
