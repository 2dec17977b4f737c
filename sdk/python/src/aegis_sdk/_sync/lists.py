"""A list that is asked for page by page, as it is iterated.

In: a `Call`, and how to read a page of its answer. Out: items, or pages. Refuses to know: what is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pydantic import BaseModel

from aegis_sdk._sync.transport import Transport
from aegis_sdk.calls import Call
from aegis_sdk.paging import Page

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class Listing(Generic[T]):
    """Iterate it for its items: `for item in listing`. Each iteration asks anew."""

    def __init__(
        self, transport: Transport, call: Call, model: type[Model], form_page: Callable[[Model], Page[T]]
    ) -> None:
        def fetch(asked: Call) -> Page[T]:
            answered = transport.fetch(asked, model)
            return form_page(answered)

        self._fetch = fetch
        self._call = call

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._call.method} {self._call.path})"

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.items

    def pages(self) -> Iterator[Page[T]]:
        """Page by page."""
        page = self.first_page()
        yield page
        while page.next_query is not None:
            page = self._fetch(self._call.with_query(page.next_query))
            yield page

    def first_page(self) -> Page[T]:
        """The first page alone."""
        return self._fetch(self._call)
