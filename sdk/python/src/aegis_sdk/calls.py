"""What is asked for, before anybody asks it.  [pure]

In: names and values, as users give them. Out: a `Call` whose path means one thing. Refuses to know: connections, keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from aegis_sdk.errors import refuse_input

Query = Mapping[str, str | int]
Given = Mapping[str, Any]
Content = bytes | Iterable[bytes] | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Call:
    """`repeatable`: it may be done twice without harm. `body` is sent as JSON, `content` as it is."""

    method: str
    path: str
    query: Query = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    content: Content | None = field(default=None, repr=False)
    repeatable: bool = False

    def with_query(self, query: Query) -> Call:
        return replace(self, query={**self.query, **query})


def get(path: str, query: Given | None = None) -> Call:
    return Call("GET", path, keep_given(query), repeatable=True)


def delete(path: str, query: Given | None = None) -> Call:
    return Call("DELETE", path, keep_given(query), repeatable=True)


def post(
    path: str, body: Given | None = None, *, headers: Mapping[str, str] | None = None, repeatable: bool = False
) -> Call:
    return Call("POST", path, headers=headers or {}, body=keep_given(body), repeatable=repeatable)


def patch(path: str, body: Given, *, headers: Mapping[str, str] | None = None) -> Call:
    return Call("PATCH", path, headers=headers or {}, body=keep_given(body))


def keep_given(values: Given | None) -> dict[str, Any]:
    """What is None was not given, and is not sent."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def form_path(*segments: str) -> str:
    """A path below /v1, each segment encoded. Raises InputError for one that would mean another path."""
    return "/v1/" + "/".join(encode_segment(segment) for segment in segments)


def encode_segment(segment: str) -> str:
    if segment in ("", ".", ".."):
        raise refuse_input("name", f"{segment!r} cannot stand in a path")
    return quote(segment, safe="")


def encode_file_path(path: str) -> str:
    """The same for a path of files, which keeps its slashes. Raises InputError."""
    return "/".join(encode_segment(segment) for segment in path.strip("/").split("/"))


def form_time(moment: datetime | None) -> str | None:
    """In UTC. Raises InputError for one that does not say in which zone it is meant."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise refuse_input("expires_at", "a time needs a zone: datetime.now(UTC), not datetime.now()")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
