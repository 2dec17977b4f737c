"""What did the caller present?  [pure]

In go the raw request headers and the query, out comes a `PresentedCredential`, None when nothing was presented, or a
CredentialError when what was presented is no key. It knows nothing of whose key it is.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from urllib.parse import unquote

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import CredentialError, Reason, UnprovenError
from proxy.identity import KeyId
from proxy.keys.legacy import LEGACY_LENGTH, LegacyToken, parse_legacy_token
from proxy.keys.token import Token, parse_token

# Where clients are known to put tokens; logs, histories and referrers keep URLs (RFC 6750 section 5.3).
_TOKEN_MEMBERS = re.compile(r"(?:^|&)(?:access_token|token|api_key|apikey|key)=", re.IGNORECASE)
# A key is looked for inside words, too: an escape such as %20 ends in what could be the beginning of one.
_KEY = re.compile(r"aegis_(?:[0-9A-Za-z]{12}_[0-9A-Za-z]{43}|[0-9A-Za-z]{40})")
_WHOLE_KEY = re.compile(r"aegis_(?:[0-9A-Za-z]{12}_[0-9A-Za-z]{49}|[0-9A-Za-z]{40})")
MAX_LOOKED_AT = 4  # of what looks like a key in one URL


@dataclass(frozen=True, slots=True)
class PresentedCredential:
    """A well-formed key, not yet verified."""

    token: Token | LegacyToken

    @property
    def key_id(self) -> KeyId | None:
        """The key it names, unproven. Tokens of the older form name none."""
        return self.token.key_id if isinstance(self.token, Token) else None


@dataclass(frozen=True, slots=True)
class PresentedText:
    """What means to be a token of the identity provider's: it holds a dot, and no key does. Nothing in it is read."""

    text: str = field(repr=False)

    @property
    def key_id(self) -> None:
        """It names no key."""
        return


class MisplacedKeyError(CredentialError):
    """What may be a key stands in the URL. `token`: the first well-formed one, unproven."""

    def __init__(self, token: Token | LegacyToken | None) -> None:
        super().__init__(
            Reason.CREDENTIAL_MISPLACED,
            "A key never belongs in a URL, where logs and histories keep it. Send it as 'Authorization: Bearer <key>';"
            " if it was a real one, revoke it now.",
        )
        self.token = token


def parse_credential(headers: CIMultiDict[str] | CIMultiDictProxy[str], query: str = "") -> PresentedCredential | None:
    """The one Bearer key of a request. Raises CredentialError; its text never quotes what was presented."""
    value = _find_authorization(headers, query)
    return PresentedCredential(parse_bearer(value)) if value is not None else None


def _find_authorization(headers: CIMultiDict[str] | CIMultiDictProxy[str], query: str) -> str | None:
    """The value of the one Authorization header, where no key stands in the URL. Raises CredentialError."""
    check_query(query)
    values = headers.getall("Authorization", ())
    if not values:
        return None
    if len(values) > 1:
        raise CredentialError(Reason.CREDENTIAL_REPEATED, "More than one Authorization header.")
    return values[0]


def check_query(query: str) -> None:
    """Whether no key stands in the URL. Raises MisplacedKeyError."""
    if query and _holds_token(decoded := unquote(query)):
        raise MisplacedKeyError(_find_token(decoded))


def parse_bearer(value: str) -> Token | LegacyToken:
    """The key in the value of an Authorization header. Raises UnprovenError."""
    text = _strip_scheme(value)
    try:
        return _parse(text)
    except ValueError as error:
        raise UnprovenError(Reason.CREDENTIAL_MALFORMED, f"This is not an Aegis API key: {error}.") from error


def _strip_scheme(value: str) -> str:
    scheme, separator, text = value.partition(" ")
    if scheme.lower() != "bearer" or not separator:
        raise UnprovenError(Reason.CREDENTIAL_MALFORMED, "The Authorization header is not 'Bearer <key>'.")
    return text.strip(" ")


def _parse(text: str) -> Token | LegacyToken:
    return parse_legacy_token(text) if len(text) == LEGACY_LENGTH else parse_token(text)


def require_credential(headers: CIMultiDict[str] | CIMultiDictProxy[str], query: str = "") -> PresentedCredential:
    """The same where there has to be one. Raises CredentialError."""
    presented = parse_credential(headers, query)
    if presented is None:
        raise CredentialError(
            Reason.CREDENTIAL_MISSING, "An API key is required: send it as 'Authorization: Bearer <key>'."
        )
    return presented


def require_either(
    headers: CIMultiDict[str] | CIMultiDictProxy[str], query: str = ""
) -> PresentedCredential | PresentedText:
    """A key, or what means to be a token, where either will do. Raises CredentialError."""
    value = _find_authorization(headers, query)
    text = _strip_scheme(value) if value is not None else ""
    return PresentedText(text) if "." in text else require_credential(headers, query)


def _find_token(query: str) -> Token | LegacyToken | None:
    """The first key in it whose form, and checksum if it has one, are right."""
    for match in islice(_WHOLE_KEY.finditer(query), MAX_LOOKED_AT):
        with suppress(ValueError):
            return _parse(match[0])
    return None


def _holds_token(query: str) -> bool:
    return _TOKEN_MEMBERS.search(query) is not None or _KEY.search(query) is not None
