"""A small real identity provider: keys of its own, its documents over HTTP, and tokens as good or bad as a test likes.

Signatures are made with `cryptography` alone, so that nothing here agrees with PyJWT by construction.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import secrets
import ssl
import time
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from html import escape
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

AUDIENCE = "aegis-proxy"
Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
CURVES: Mapping[str, tuple[ec.EllipticCurve, str]] = {
    "ES256": (ec.SECP256R1(), "P-256"),
    "ES384": (ec.SECP384R1(), "P-384"),
    "ES512": (ec.SECP521R1(), "P-521"),
}
HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}


def encode(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _encode_number(number: int, size: int | None = None) -> str:
    return encode(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class IssuerKey:
    """A private key, and the algorithm it signs by."""

    kid: str
    algorithm: str
    private: Private = field(repr=False)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half as a provider publishes it."""
        frame = {"kid": self.kid, "use": "sig", "alg": self.algorithm}
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            return {"kty": "RSA", "n": _encode_number(numbers.n), "e": _encode_number(numbers.e)} | frame
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return {"kty": "OKP", "crv": "Ed25519", "x": encode(self.private.public_key().public_bytes_raw())} | frame
        point, size = self.private.public_key().public_numbers(), (self.private.key_size + 7) // 8
        curve = CURVES[self.algorithm][1]
        return {
            "kty": "EC",
            "crv": curve,
            "x": _encode_number(point.x, size),
            "y": _encode_number(point.y, size),
        } | frame

    def sign(self, text: bytes) -> bytes:
        digest = HASHES.get(self.algorithm[2:], hashes.SHA256())
        if isinstance(self.private, rsa.RSAPrivateKey):
            salted = padding.PSS(padding.MGF1(digest), digest.digest_size)
            return self.private.sign(text, salted if self.algorithm[0] == "P" else padding.PKCS1v15(), digest)
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(text)
        size = (self.private.key_size + 7) // 8
        r, s = decode_dss_signature(self.private.sign(text, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@cache
def make_key(algorithm: str = "RS256", kid: str = "first", *, bits: int = 2048) -> IssuerKey:
    """The same one for the same arguments: an RSA key takes a tenth of a second."""
    if algorithm in CURVES:
        return IssuerKey(kid, algorithm, ec.generate_private_key(CURVES[algorithm][0]))
    if algorithm == "EdDSA":
        return IssuerKey(kid, algorithm, ed25519.Ed25519PrivateKey.generate())
    return IssuerKey(kid, algorithm, rsa.generate_private_key(public_exponent=65537, key_size=bits))


def form_token(key: IssuerKey, claims: object, header: object = None, **changes: object) -> str:
    """A signed token. `header` and `claims` are JSON values, or bytes as they are; a change to None leaves it out."""
    if header is None:
        whole = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT", **changes}
        header = {name: value for name, value in whole.items() if value is not None}
    parts = [encode(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, claims)]
    text = ".".join(parts)
    return f"{text}.{encode(key.sign(text.encode()))}"


def form_hmac_token(secret: bytes, claims: object, kid: str) -> str:
    """What an attacker makes of a public key, hoping that it is taken for a secret."""
    parts = [encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "kid": kid, "typ": "JWT"}, claims)]
    text = ".".join(parts)
    return f"{text}.{encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Issuer:
    """A provider that listens. `keys` are published; the first one signs. `answers` replaces what a path says; `host`
    is how it is called."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.host = host
        self.keys = [make_key()]
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Answer] = {}
        self.metadata: dict[str, Any] = {}
        self.wall: Callable[[], float] = time.time
        self.page: tuple[str, str | None, str] | None = None  # client id, secret, redirect URL
        self.person: dict[str, Any] = {}  # claims of whoever sits before its sign-in page
        self.asks = False  # whether its page waits for what that person says
        self.codes: dict[str, dict[str, str]] = {}
        self.port = 0
        self._tls = tls
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://{self.host}:{self.port}"

    def form_claims(self, **changes: object) -> dict[str, Any]:
        """Claims of Ada, good for five minutes; a change to None leaves one out."""
        now = int(self.wall())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, **changes}
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, **changes: object) -> str:
        """A good token, apart from the changes."""
        return form_token(self.keys[0], self.form_claims(**changes))

    async def start(self) -> None:
        """Listen, where it listened before if it did."""
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be gone: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked[request.path] += 1
        if request.path in self.answers:
            return await self.answers[request.path](request)
        if request.path == "/.well-known/openid-configuration":
            places = {"authorization_endpoint": f"{self.url}/authorize", "token_endpoint": f"{self.url}/token"}
            return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **places, **self.metadata})
        if request.path == "/keys":
            return web.json_response({"keys": [key.jwk for key in self.keys]})
        if request.path == "/authorize":
            return self._authorize(request.query)
        if request.path == "/token":
            return self._redeem(dict(parse_qsl((await request.read()).decode())), request.headers)
        return web.Response(status=404)

    def _authorize(self, asked: Mapping[str, str]) -> web.Response:
        """Whoever sits there agrees at once, or says so. OAuth 2.1's rules: PKCE, and a redirect URL letter for
        letter."""
        assert self.page is not None
        client_id, _, redirect_url = self.page
        if (asked["client_id"], asked["redirect_uri"], asked["response_type"]) != (client_id, redirect_url, "code"):
            return web.Response(status=400)
        if asked["code_challenge_method"] != "S256" or "openid" not in asked["scope"].split():
            return web.Response(status=400)
        if self.asks and "answer" not in asked:
            return web.Response(text=_form_question(asked), content_type="text/html")
        answer = {"state": asked["state"], "iss": self.url}
        if asked.get("answer") == "deny":
            answer["error"] = "access_denied"
        else:
            answer["code"] = secrets.token_urlsafe(16)
            self.codes[answer["code"]] = dict(asked)
        return web.Response(status=302, headers={"Location": f"{redirect_url}?{urlencode(answer)}"})

    def _redeem(self, form: Mapping[str, str], headers: Mapping[str, str]) -> web.Response:
        """A code is good once, for whoever began the flow with it, and knows the client's secret."""
        assert self.page is not None
        client_id, secret, redirect_url = self.page
        asked = self.codes.pop(form.get("code", ""), None)
        if secret is not None:
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}"
            basic = "Basic " + b64encode(pair.encode()).decode()
            if headers.get("Authorization") != basic and form.get("client_secret") != secret:
                return web.json_response({"error": "invalid_client"}, status=401)
        challenge = encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if asked is None or form.get("redirect_uri") != redirect_url or asked["code_challenge"] != challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        id_token = self.sign(**{"aud": client_id, "nonce": asked["nonce"], **self.person})
        return web.json_response({"id_token": id_token, "access_token": "of no interest", "token_type": "Bearer"})


def _form_question(asked: Mapping[str, str]) -> str:
    """The provider's page for a person who has not answered yet."""
    kept = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in asked.items())
    buttons = '<button name="answer" value="agree">Agree</button><button name="answer" value="deny">Deny</button>'
    return f'<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,"><form>{kept}{buttons}'


@contextlib.asynccontextmanager
async def run_issuer(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Issuer]:
    """A provider for as long as the context lasts."""
    issuer = Issuer(tls, host)
    await issuer.start()
    try:
        yield issuer
    finally:
        await issuer.stop()


def answer_with(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Always the same answer."""

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return answer


def hold_until(released: asyncio.Event, answer: Answer) -> Answer:
    """An answer that does not come before a test says so."""

    async def wait(request: web.BaseRequest) -> web.StreamResponse:
        await released.wait()
        return await answer(request)

    return wait
