"""Is the outside of the request unambiguous?  [pure]

In go the request line and headers, out comes a canonical target, or a RequestError. What two HTTP implementations could
read differently is refused here, once, before anything is decided; the same bytes that pass are judged and forwarded.
Sources: RFC 9112, and the smuggling and path classes behind CVE-2023-47641 (aiohttp), CVE-2026-33494 (Oathkeeper) and
CVE-2021-32777 (Envoy).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from multidict import CIMultiDict, CIMultiDictProxy

from proxy.errors import Reason, RequestError
from proxy.messages import fold_name

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

# RFC 3986 path characters without ";", which some servers cut parameters at; escapes are checked one by one.
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-F]{2})+)+", re.ASCII)
# No semicolon: some readers separate members by it.
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@/?-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,=:@/?-]*)*", re.ASCII)
_PARTS = re.compile(r"\[")  # what PHP and its imitators make a member of a list or map
_ESCAPE = re.compile(r"%([0-9A-F]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
# An escaped "%" is another path for whoever decodes twice.
_NEVER_ESCAPED = _UNRESERVED | frozenset(b"/\\%") | frozenset(range(0x20)) | {0x7F}
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::([0-9]{1,5}))?", re.ASCII)
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
WITHHELD_MEMBERS = frozenset(fold_name(name) for name in ("tenant_id", "tenant", "user_id"))
# `credentials` refuses these as they are written most, and keys themselves under any name; this is for the other
# spellings that an upstream might read.
CREDENTIAL_MEMBERS = frozenset(fold_name(name) for name in ("access_token", "token", "api_key", "key"))
_NO_MEMBERS: Final[Mapping[str, str]] = MappingProxyType({})
SUPPORTED_VERSIONS = frozenset({(1, 0), (1, 1)})
# Twice means that two readers may pick different ones. (A repeated Authorization is refused by `credentials`, which
# challenges for another.)
SINGLETONS = (
    "Host", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Expect",
    "Origin", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Last-Event-ID",
)  # fmt: skip
_SINGLETONS = frozenset(name.lower().encode() for name in SINGLETONS)


@dataclass(frozen=True, slots=True)
class Target:
    """A canonical origin-form target: `path` is judged, `text` is forwarded, and text begins with path."""

    path: str
    query: str
    text: str


def parse_target(raw: str) -> Target:
    """Read a request target as it stood on the line. Raises RequestError unless it is canonical."""
    path, question, query = raw.partition("?")
    if raw == "/":
        return Target("/", "", raw)  # canonical, though nothing is served there: what a browser shows first
    if not _PATH.fullmatch(path) or (question and not _QUERY.fullmatch(query)):
        raise _not_canonical("it is not plain origin form (no scheme, fragment, empty segment or odd character)")
    if "/." in path and any(segment in (".", "..") for segment in path.split("/")):
        raise _not_canonical("it has dot segments")
    if "%" in path:
        _check_escapes(path)
    return Target(path, query, raw)


def _check_escapes(path: str) -> None:
    for match in _ESCAPE.finditer(path):
        if int(match[1], 16) in _NEVER_ESCAPED:
            raise _not_canonical("it escapes a character that must stand plain, or that no path may hold")
    try:
        unquote_to_bytes(path).decode("utf-8")
    except UnicodeError as error:
        raise _not_canonical("its escapes are not UTF-8") from error


def _not_canonical(why: str) -> RequestError:
    return RequestError(Reason.TARGET_NOT_CANONICAL, f"The request target cannot be judged: {why}.")


def parse_query(query: str, allowed: Collection[str] = (), repeatable: Collection[str] = ()) -> Mapping[str, str]:
    """The members of a query, decoded, each of them once.

    Refused are members that would speak for somebody else, hold a key, or be read differently by two readers.
    `allowed` are those that the policy judges: they may speak for somebody, but have one spelling. `repeatable` ones
    may stand twice, so nothing can judge them, and they are left out. Raises RequestError.
    """
    if not query:
        return _NO_MEMBERS
    members: dict[str, str] = {}
    known = {fold_member(name) for name in (*allowed, *repeatable)}
    seen = set()
    for name, value in _split_query(query):
        folded = fold_member(name)
        if folded in CREDENTIAL_MEMBERS:
            raise RequestError(Reason.CREDENTIAL_MISPLACED, "A key never belongs in a URL, where logs keep it.")
        if name in repeatable:
            continue
        if name not in allowed and folded in WITHHELD_MEMBERS:
            raise _bad_query("Tenant and user are the key's to say, not the query's.")
        if name not in allowed and folded in known:
            raise _bad_query("A query member is spelt like one that this route takes, but not quite.")
        if folded in seen:
            raise _bad_query("A query member stands there twice.")
        seen.add(folded)
        members[name] = value
    return members


def fold_member(name: str) -> str:
    """What careless readers would take for the same query member."""
    return fold_name(_PARTS.split(name.strip(), maxsplit=1)[0].replace(".", "_").replace(" ", "_"))


def _split_query(query: str) -> list[tuple[str, str]]:
    try:
        members = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeError as error:
        raise _bad_query("Its escapes are not UTF-8, so that readers would replace them or leave them out.") from error
    if any(name.strip().startswith("[") for name, _ in members):
        raise _bad_query("A query member in brackets has no name, or one that some readers take out of them.")
    if not all(name.isprintable() for name, _ in members):
        raise _bad_query("The name of a query member holds a control character, at which some readers stop.")
    return members


def _bad_query(detail: str) -> RequestError:
    return RequestError(Reason.QUERY_NOT_ALLOWED, detail)


def check_framing(version: tuple[int, int], raw_headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse repeated singletons, odd versions, codings and expectations. Raises RequestError."""
    if version not in SUPPORTED_VERSIONS:
        raise RequestError(Reason.HTTP_VERSION_UNSUPPORTED, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    seen = set()
    for name, value in raw_headers:
        lowered = name.lower()
        if lowered not in _SINGLETONS:
            continue
        if lowered in seen:
            raise RequestError(Reason.HEADER_REPEATED, f"More than one {lowered.decode()} header.")
        seen.add(lowered)
        if not value.isascii() or b"\0" in value:
            raise RequestError(Reason.HEADER_INVALID, f"The {lowered.decode()} header is not plain ASCII.")
        if lowered == b"transfer-encoding" and (value.strip().lower() != b"chunked" or version != (1, 1)):
            raise RequestError(Reason.TRANSFER_ENCODING_UNSUPPORTED, "The only transfer coding read here is chunked.")
        if lowered == b"content-encoding" and value.strip().lower() != b"identity":
            raise RequestError(
                Reason.CONTENT_ENCODING_UNSUPPORTED, "Compressed bodies are not read here: send it uncompressed."
            )
        if lowered == b"expect" and value.strip().lower() != b"100-continue":
            raise RequestError(Reason.EXPECTATION_FAILED, "The only expectation met here is 100-continue.")


def check_host(headers: Headers, allowed: Collection[str]) -> None:
    """`allowed`: host names, or `name:port`, in lower case; empty: any well-formed one. Raises RequestError."""
    match = _HOST.fullmatch(headers.get("Host", ""))
    if match is None:
        raise RequestError(Reason.HEADER_INVALID, "The Host header is missing or malformed.")
    if allowed and match[1].lower() not in allowed and match[0].lower() not in allowed:
        raise RequestError(
            Reason.HOST_NOT_ALLOWED, "This host name is not served here; operators list names under allowed_hosts."
        )


def check_origin(headers: Headers, allowed: Collection[str]) -> None:
    """Browsers send Origin, editors and agents do not: an absent one passes (DNS rebinding). Raises RequestError."""
    origin = headers.get("Origin")
    if origin is not None and origin not in allowed:
        raise RequestError(Reason.ORIGIN_NOT_ALLOWED, "Requests from this origin are not allowed; see allowed_origins.")


def check_page_origin(headers: Headers, allowed: Collection[str], public_url: str | None) -> None:
    """Where pages of our own ask, too. Raises RequestError."""
    check_origin(headers, {*allowed, *find_own_origins(headers, public_url)})


def find_own_origins(headers: Headers, public_url: str | None) -> set[str]:
    """Of pages of our own, lower-cased: those that came under the Host of this request, which has been checked, and
    under the address that browsers know where a proxy before us has written another Host. A name that was rebound to us
    brings neither a key nor a cookie of ours along."""
    host = headers.get("Host", "").lower()
    own = {f"http://{host}", f"https://{host}"}
    if public_url is not None:
        parts = urlsplit(public_url.lower())
        own.add(f"{parts.scheme}://{parts.netloc}")
    return own


def check_json_content_type(headers: Headers) -> None:
    """Exactly `application/json`, optionally with `charset=utf-8`. Raises RequestError.

    Case variants and lists are refused: a gate that skips what an engine runs was seen elsewhere.
    """
    value = headers.get("Content-Type", "")
    kind, _, parameter = value.partition(";")
    charset = parameter.strip().lower().replace('"', "")
    if kind.strip() != "application/json" or charset not in ("", "charset=utf-8"):
        raise RequestError(Reason.CONTENT_TYPE_UNSUPPORTED, "Send Content-Type: application/json.")
