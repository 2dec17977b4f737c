"""Where a list goes on.  [pure]

In: a page as the server sent it. Out: what to ask for next, or None at the end. Refuses to know: what is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from aegis_sdk.calls import Query

T = TypeVar("T")


class Counted(Protocol):
    """A page of a list that is asked for by position, as the platform's are."""

    @property
    def limit(self) -> int: ...

    @property
    def offset(self) -> int: ...


class Linked(Protocol):
    """A page of a list that is asked for by cursor, as the proxy's are."""

    @property
    def next_cursor(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`total`: how many there are on all pages; None where nobody counts. `next_query` None: it is the last."""

    items: Sequence[T]
    total: int | None
    next_query: Query | None


def form_counted_page(page: Counted, items: Sequence[T]) -> Page[T]:
    """One without a total ends with the first page that is not full."""
    total = getattr(page, "total", None)
    told = page.offset + len(items)
    more = bool(items) and (told < total if total is not None else len(items) >= page.limit)
    return Page(items, total, {"limit": page.limit, "offset": told} if more else None)


def form_linked_page(page: Linked, items: Sequence[T]) -> Page[T]:
    return Page(items, None, {"cursor": page.next_cursor} if page.next_cursor else None)
