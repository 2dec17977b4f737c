"""What a browser sends to a page of ours, and from where.  [pure]

In go headers, queries and bodies of forms, out come their members, or a RequestError: from another site, in another
form, or with a member that stands twice. Where a sign-in leads is one of our own pages and nothing else.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.console.sign_in_pages import ROOT
from proxy.envelope import find_own_origins
from proxy.errors import Reason, RequestError

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

FORM_TYPE: Final = "application/x-www-form-urlencoded"
MAX_MEMBERS: Final = 8
_ONWARD = re.compile(rf"{ROOT}(/[0-9A-Za-z-]{{1,64}})*(\?[0-9A-Za-z%&=._~+-]{{0,1000}})?", re.ASCII)


def check_same_site(headers: Headers, public_url: str | None) -> None:
    """Whether our own page asks. Browsers say `Origin` with every POST, and most say `Sec-Fetch-Site`; an opaque origin
    ("null") is what a page without a referrer has, and then the latter has to vouch. Raises RequestError."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    own = find_own_origins(headers, public_url)
    foreign = site is not None and site not in ("same-origin", "none")
    unknown = origin is not None and origin.lower() not in own and not (origin == "null" and site == "same-origin")
    if foreign or unknown:
        raise RequestError(Reason.ORIGIN_NOT_ALLOWED, "This was sent from another site.")


def read_form(headers: Headers, body: bytes) -> dict[str, str]:
    """The members of a form. Raises RequestError."""
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise RequestError(Reason.CONTENT_TYPE_UNSUPPORTED, f"This takes {FORM_TYPE}.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict",
                          max_num_fields=MAX_MEMBERS)  # fmt: skip
    except ValueError:
        raise RequestError(Reason.MESSAGE_UNREADABLE, "This is not a form.") from None
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RequestError(Reason.MESSAGE_UNREADABLE, "A member of the form stands twice.")
    return members


def settle_onward(wanted: str | None) -> str:
    """Where a sign-in leads: to the page of ours that was asked for, or to the first one."""
    return wanted if wanted is not None and _ONWARD.fullmatch(wanted) else ROOT
