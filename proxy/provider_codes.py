"""The authorization code flow with PKCE, as the provider meets it.  [pure]

In go what a browser holds for us and what it comes back with, out come addresses and forms, or a CredentialError.
Everything a flow has to remember is derived from one random value in the browser's cookie: state, nonce and verifier
(RFC 6749 section 10.12, OpenID Connect Core section 3.1.2.1, RFC 7636). So nothing is stored, and a flow that was begun
in one browser ends in no other.
"""

from __future__ import annotations

import hmac
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import quote, urlencode

import orjson

from proxy.console.cookies import derive
from proxy.errors import CredentialError, Reason, UnprovenError
from proxy.provider_documents import ProviderError, ProviderMetadata
from proxy.provider_tokens import ProviderClaims

MAX_CODE = 2048
# What is our settings' fault and no visitor's (RFC 6749 section 5.2).
CLIENT_ERRORS = ("invalid_client", "unauthorized_client", "unsupported_grant_type")


@dataclass(frozen=True, slots=True)
class ProviderPage:
    """The page as the provider knows it. `secret`: None for a public client."""

    client_id: str
    secret: str | None = field(repr=False)
    redirect_url: str


def form_authorization_url(base: str, page: ProviderPage, value: str, onward: str) -> str:
    """Where to send the browser. `base`: the provider's authorization endpoint; `value`: of the flow's cookie;
    `onward`: where to go in the end, to be judged again when it comes back."""
    challenge = urlsafe_b64encode(sha256(derive(value, "verifier").encode()).digest()).rstrip(b"=").decode()
    members = {
        "response_type": "code",
        "client_id": page.client_id,
        "redirect_uri": page.redirect_url,
        "scope": "openid",
        "state": f"{derive(value, 'state')}.{onward}",
        "nonce": derive(value, "nonce"),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{base}{'&' if '?' in base else '?'}{urlencode(members)}"


def read_onward(members: Mapping[str, str]) -> str:
    """Where to go in the end, as the state says, whoever wrote it."""
    return members.get("state", "").partition(".")[2]


def read_code(members: Mapping[str, str], value: str | None, issuer: str) -> str:
    """The code that came back to the browser the flow was begun in. `value`: of its cookie. Raises CredentialError."""
    state = members.get("state", "").partition(".")[0]
    if value is None or not _is_same(state, derive(value, "state")):
        raise refuse_sign_in("it was begun in another browser, or too long ago")
    if members.get("iss", issuer) != issuer:  # RFC 9207: another provider's answer
        raise refuse_sign_in("another provider answered")
    code = members.get("code", "")
    if "error" in members or not 0 < len(code) <= MAX_CODE:
        raise refuse_sign_in("the provider did not sign you in")
    return code


def form_redemption(
    code: str, page: ProviderPage, metadata: ProviderMetadata, verifier: str
) -> tuple[dict[str, str], dict[str, str]]:
    """The form that trades the code for tokens, and the headers it goes with (RFC 6749 sections 2.3.1 and 4.1.3)."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": page.redirect_url,
        "client_id": page.client_id,
        "code_verifier": verifier,
    }
    if page.secret is None:
        return form, {}
    if metadata.posts_secret:
        return {**form, "client_secret": page.secret}, {}
    pair = f"{quote(page.client_id, safe='')}:{quote(page.secret, safe='')}"
    return form, {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def parse_id_token(status: int, body: bytes) -> str:
    """The ID token of the answer to that form. Raises UnprovenError where the code is at fault, and ProviderError."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    members = answer if isinstance(answer, dict) else {}
    error = members.get("error")
    if status // 100 == 4 and error in CLIENT_ERRORS:
        raise ProviderError(f"answered {error}: look at console.client_id and console.client_secret")
    if status // 100 == 4:
        raise refuse_sign_in("the provider did not take its code", UnprovenError)
    if status != 200:
        raise ProviderError(f"answered {status} to a code")
    token = members.get("id_token")
    if not isinstance(token, str):
        raise ProviderError("answered a code without an ID token")
    return token


def check_flow(claims: ProviderClaims, page: ProviderPage, value: str) -> None:
    """Whether the ID token was made for this flow, and for us among all it is made for. Raises CredentialError."""
    if not _is_same(claims.nonce or "", derive(value, "nonce")):
        raise refuse_sign_in("the provider answered another one")
    if claims.party not in (None, page.client_id):
        raise refuse_sign_in("the provider answered somebody else")


def refuse_sign_in(why: str, kind: type[CredentialError] = CredentialError) -> CredentialError:
    """`why` is of our own words: what came back is not repeated."""
    return kind(Reason.TOKEN_INVALID, f"This sign-in did not work: {why}. Try again.")


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
