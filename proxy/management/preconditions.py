"""What a request's headers say of when and how often it is to be done.  [pure]

In go headers, out come the version a key must have and the word that stands for the request, or a refusal.
"""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.management.faults import refuse_input, refuse_stale

Headers = CIMultiDict[str] | CIMultiDictProxy[str]
IDEMPOTENCY_KEY: Final = "^[!-~]{1,255}$"
IF_MATCH: Final = r'^(W/)?"[!#-~]{0,255}"$|^\*$'  # one entity tag, or any (RFC 9110 section 13.1.1)
_VERSION = re.compile(r'"(0|[1-9][0-9]{0,18})"', re.ASCII)


def read_version(headers: Headers) -> int | None:
    """The version that If-Match names; None: any will do. Raises RequestError: malformed, or of no key ever."""
    text = _find_single(headers, "If-Match", IF_MATCH)
    if text is None or text == "*":
        return None
    match = _VERSION.fullmatch(text)
    if match is None:  # a weak tag matches nothing here, and neither does one that we never gave
        raise refuse_stale()
    return int(match[1])


def read_word(headers: Headers) -> str | None:
    """What Idempotency-Key says; None: done as often as it comes. Raises RequestError."""
    return _find_single(headers, "Idempotency-Key", IDEMPOTENCY_KEY)


def _find_single(headers: Headers, name: str, pattern: str) -> str | None:
    values = headers.getall(name, ())
    if not values:
        return None
    if len(values) > 1 or re.search(pattern, values[0], re.ASCII) is None or values[0].endswith("\n"):
        raise refuse_input([(name, "stands there once, and in the form that the document says")])
    return str(values[0])
