"""Who is asking, in the words of one upstream: the headers that say so.  [pure]

In goes whoever was found to ask, out come header lines and the names under which they might be forged. Which upstream
is told in which way is the settings' to say; how an assertion is made and signed is not known here.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias
from urllib.parse import quote

from proxy.headers import fold_header
from proxy.identity import Asker

Claim: TypeAlias = Literal["sub", "tenant_id", "zaru_tier", "scopes", "key_id"]
FormIdentity: TypeAlias = Callable[[Asker], list[tuple[str, str]]]
# Visible ASCII but the sign of the encoding itself. RFC 9110 section 5.5 allows more, and nobody agrees on its meaning.
VISIBLE = string.ascii_letters + string.digits + string.punctuation.replace("%", "")
_OUTER_BLANKS = re.compile(r"\A +| +\Z")


class Voucher(Protocol):
    """Whoever makes assertions."""

    def get(self, asker: Asker, audience: str) -> str:
        """An assertion about whoever asks, for one upstream."""

    def get_own(self, audience: str) -> str:
        """An assertion about the proxy itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How an upstream learns who is asking. `names`: folded (`headers.fold_header`); the client's own are stripped.
    `form_own`: what is said when nobody asks but the proxy itself, to end what a dead key left."""

    names: frozenset[str]
    form: FormIdentity
    form_own: Callable[[], list[tuple[str, str]]]


def form_nothing(_asker: Asker) -> list[tuple[str, str]]:
    """For upstreams that need not know."""
    return []


NO_IDENTITY = Identity(frozenset(), form_nothing, list)


def make_assertion_identity(voucher: Voucher, audience: str, header: str) -> Identity:
    """A signed assertion in one header; in `Authorization` it is a bearer token (RFC 6750)."""
    scheme = "Bearer " if header.lower() == "authorization" else ""

    def form(asker: Asker) -> list[tuple[str, str]]:
        return [(header, scheme + voucher.get(asker, audience))]

    def form_own() -> list[tuple[str, str]]:
        return [(header, scheme + voucher.get_own(audience))]

    return Identity(frozenset({fold_header(header)}), form, form_own)


def make_header_identity(headers: Mapping[str, Claim]) -> Identity:
    """A plain header for each claim, for upstreams that trust whoever reaches them. The proxy's own is nothing: it has
    no claims, and none are made up."""

    def form(asker: Asker) -> list[tuple[str, str]]:
        said = {header: form_claim(asker, claim) for header, claim in headers.items()}
        return [(header, value) for header, value in said.items() if value is not None]

    return Identity(frozenset(map(fold_header, headers)), form, list)


def add_credential(identity: Identity, bearer_token: str) -> Identity:
    """The same, and that it is we who ask: a token of our own, whoever asks through us."""
    credential = [("Authorization", f"Bearer {bearer_token}")]
    return Identity(
        identity.names,
        lambda asker: credential + identity.form(asker),
        lambda: credential + identity.form_own(),
    )


def form_claim(asker: Asker, claim: Claim) -> str | None:
    """A claim as a header value; None: there is nothing to say. Scopes are parted by blanks; those inside a scope are
    encoded."""
    match claim:
        case "sub":
            return form_value(asker.owner.subject)
        case "tenant_id":
            return form_value(asker.owner.tenant_id)
        case "zaru_tier":
            return form_value(asker.owner.tier)
        case "key_id":
            return form_value(asker.key_id) if asker.key_id is not None else None
        case "scopes":
            return " ".join(quote(scope, VISIBLE, errors="surrogatepass") for scope in sorted(asker.grants))


def form_value(text: str) -> str:
    """Printable ASCII without blanks at the ends; the rest is percent-encoded UTF-8, and so is `%`: percent-decoding
    gives the text back, whatever it holds, and nothing in it can end the line."""
    quoted = quote(text, VISIBLE + " ", errors="surrogatepass")
    return _OUTER_BLANKS.sub(lambda blanks: "%20" * len(blanks[0]), quoted)
