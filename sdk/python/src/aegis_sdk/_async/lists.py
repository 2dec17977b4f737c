"""A list that is asked for page by page, as it is iterated.

In: a `Call`, and how to read a page of its answer. Out: items, or pages. Refuses to know: what is listed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from pydantic import BaseModel

from aegis_sdk._async.transport import AsyncTransport
from aegis_sdk.calls import Call
from aegis_sdk.paging import Page

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)


class AsyncListing(Generic[T]):
    """Iterate it for its items: `async for item in listing`. Each iteration asks anew."""

    def __init__(
        self, transport: AsyncTransport, call: Call, model: type[Model], form_page: Callable[[Model], Page[T]]
    ) -> None:
        async def fetch(asked: Call) -> Page[T]:
            answered = await transport.fetch(asked, model)
            return form_page(answered)

        self._fetch = fetch
        self._call = call

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._call.method} {self._call.path})"

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item

    async def pages(self) -> AsyncIterator[Page[T]]:
        """Page by page."""
        page = await self.first_page()
        yield page
        while page.next_query is not None:
            page = await self._fetch(self._call.with_query(page.next_query))
            yield page

    async def first_page(self) -> Page[T]:
        """The first page alone."""
        return await self._fetch(self._call)
