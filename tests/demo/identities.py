"""Whoever stands in front of the sample platform, for tests: signs who is asking, and publishes with what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm
from multidict import CIMultiDict

from proxy.demo.assertion_check import TOKEN_HEADER, Caller

PrivateKey: TypeAlias = RSAPrivateKey | Ed25519PrivateKey
ISSUER, AUDIENCE = "aegis-proxy", "mcp"
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "zaru_tier": "pro", "tenant_id": "acme"}
ADA = Caller("ada", "pro", "acme")


@dataclass
class Issuer:
    """Signing keys by their ids, public keys of others, and the address where all of them are published. `asked`: how
    often; an answer waits for `may_answer`."""

    keys: dict[str, PrivateKey]
    others: list[Mapping[str, str]] = field(default_factory=list)
    jwks_uri: str = ""
    asked: int = 0
    broken: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def sign(self, kid: str = "rsa", headers: Mapping[str, Any] | None = None, **changes: object) -> str:
        """A token; a claim that is changed to None is left out."""
        now = int(time.time())
        claims = {**CLAIMS, "iat": now, "exp": now + 60, **changes}
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, RSAPrivateKey) else "EdDSA"
        said = {name: claim for name, claim in claims.items() if claim is not None}
        return jwt.encode(said, key, algorithm, {"kid": kid, **(headers or {})})

    async def answer(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.reached.set()
        await self.may_answer.wait()
        if self.broken:
            return web.Response(text="sorry")
        own = [{**form_jwk(key), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]
        return web.json_response({"keys": [*own, *self.others]})


def form_jwk(key: PrivateKey) -> dict[str, Any]:
    """The public half."""
    if isinstance(key, RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)


@asynccontextmanager
async def run_issuer(keys: Mapping[str, PrivateKey]) -> AsyncIterator[Issuer]:
    issuer = Issuer(dict(keys))
    issuer.may_answer.set()
    application = web.Application()
    application.router.add_get("/jwks", issuer.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.jwks_uri = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    try:
        yield issuer
    finally:
        await runner.cleanup()


def present(token: str) -> Mapping[str, str]:
    """The headers of a request."""
    return CIMultiDict({TOKEN_HEADER: token})
