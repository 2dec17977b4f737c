"""Who calls, as the platform's own servers find out: by a signed assertion of whoever stands in front.  [io]

In: the headers of a request. Out: a `Caller`, or `NotIdentified` with a sentence. The token is read from
`X-Zaru-User-Token`, else from `Authorization`; its signature is verified against the JWKS at `jwks_uri`, fetched when
needed, by one request at a time. Refuses to know: API keys, scopes, and what the caller may do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import jwt

TOKEN_HEADER = "X-Zaru-User-Token"  # noqa: S105 - the name of a header
ALGORITHMS = ("RS256", "EdDSA")
TIERS = ("free", "pro", "business", "enterprise")
NEEDED = ("iss", "aud", "sub", "iat", "exp")
# As the platform's own library (jose) has it: keys are believed for ten minutes, and an unknown key is a reason to
# fetch them anew, but not more often than twice a minute.
MAX_AGE_SECONDS = 600.0
COOLDOWN_SECONDS = 30.0
FETCH_TIMEOUT_SECONDS = 5.0


class NotIdentified(Exception):
    """There is no assertion, or it does not prove anything. The text may be told."""


@dataclass(frozen=True, slots=True)
class Caller:
    subject: str
    tier: str
    tenant_id: str | None


class AssertionCheck:
    """`jwks_uri` may be set later; until then nobody is identified."""

    def __init__(
        self,
        jwks_uri: str | None,
        audience: str,
        issuer: str,
        *,
        cooldown_seconds: float = COOLDOWN_SECONDS,
        max_age_seconds: float = MAX_AGE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.jwks_uri = jwks_uri
        self.audience = audience
        self.issuer = issuer
        self.cooldown_seconds = cooldown_seconds
        self.max_age_seconds = max_age_seconds
        self.clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._fetching = asyncio.Lock()

    async def check(self, headers: Mapping[str, str]) -> Caller:
        """Whose request it is; `headers` must not mind upper and lower case. Raises NotIdentified."""
        token = find_token(headers)
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            key = await self._get_key(kid)
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self.audience,
                issuer=self.issuer,
                options={"require": list(NEEDED)},
            )
        except jwt.PyJWTError as error:
            raise NotIdentified(f"the token is not valid: {error}") from error
        return read_caller(claims)

    async def _get_key(self, kid: str) -> jwt.PyJWK:
        if self._is_due(kid):
            async with self._fetching:
                if self._is_due(kid):  # whoever held the lock before may have fetched it
                    self._keys = await self._fetch()
                    self._fetched_at = self.clock()
        if kid not in self._keys:
            raise NotIdentified("the token is signed with a key that is not published")
        return self._keys[kid]

    def _is_due(self, kid: str) -> bool:
        if self._fetched_at is None:
            return True
        age_seconds = self.clock() - self._fetched_at
        return age_seconds >= (self.max_age_seconds if kid in self._keys else self.cooldown_seconds)

    async def _fetch(self) -> Mapping[str, jwt.PyJWK]:
        if self.jwks_uri is None:
            raise NotIdentified("it is not known yet whose tokens to believe")
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_SECONDS)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(self.jwks_uri) as response:
                response.raise_for_status()
                found = jwt.PyJWKSet.from_dict(await response.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError, jwt.PyJWTError) as error:
            raise NotIdentified(f"the keys to verify tokens with cannot be had: {type(error).__name__}") from error
        return {key.key_id: key for key in found if key.key_id is not None and key.algorithm_name in ALGORITHMS}


def find_token(headers: Mapping[str, str]) -> str:
    """The one that is presented. Raises NotIdentified."""
    token = headers.get(TOKEN_HEADER)
    if token is None:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise NotIdentified(f"a token is needed, in {TOKEN_HEADER} or as a bearer token")
    return token.strip()


def read_caller(claims: Mapping[str, Any]) -> Caller:
    """Raises NotIdentified when the claims do not say who it is."""
    subject, tier, tenant_id = (claims.get(name) for name in ("sub", "zaru_tier", "tenant_id"))
    if not isinstance(subject, str) or not subject:
        raise NotIdentified("the token names nobody: `sub` is empty")
    if tier not in TIERS:
        raise NotIdentified(f"the token names no tier: `zaru_tier` must be one of {', '.join(TIERS)}")
    if not isinstance(tenant_id, str | None):
        raise NotIdentified("the token's `tenant_id` is not a text")
    return Caller(subject, tier, tenant_id)
