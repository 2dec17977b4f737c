"""Who signed in at the platform's identity provider?  [io]

In goes a bearer token, out come the claims the provider vouches for, or a refusal. The provider's public keys are read
over HTTP when they are first needed, when they are old, and when a token names one that is not among them, though
never twice within a moment: whoever makes ids up must not make us storm the provider. One reading at a time serves all
who ask. While the provider is away its last keys go on for a bounded time, and then the answer is 503, not 401: what we
cannot know is no reason to throw a sign-in away.

What an owner may do is not known here; `keys/rights` makes a caller of the claims and the owner's row.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from proxy.clock import Clock
from proxy.errors import Reason, UnavailableError
from proxy.kept_documents import KeptDocument
from proxy.logs import get_logger
from proxy.outages import Outage
from proxy.provider_client import ProviderClient
from proxy.provider_codes import ProviderPage, form_redemption, parse_id_token
from proxy.provider_documents import (
    KeySet,
    ProviderError,
    ProviderMetadata,
    VerificationKey,
    parse_keys,
    parse_metadata,
)
from proxy.provider_tokens import (
    Expected,
    PresentedToken,
    ProviderClaims,
    judge_claims,
    parse_token,
    prove,
    refuse,
)

log = get_logger("identity_provider")

T = TypeVar("T")

METADATA_PATH: Final = "/.well-known/openid-configuration"
# Between two readings, whatever asks for them. Providers publish keys before they sign with them, by far more.
RETRY_SECONDS: Final = 10.0


class IdentityProvider:
    """`redeeming`: asks for nothing but tokens, so that codes, which anybody may make up, never stand before the keys.
    `jwks_url`: where its keys are; None: where its metadata says. `count_reading(worked)` hears of each reading."""

    def __init__(
        self,
        client: ProviderClient,
        redeeming: ProviderClient,
        *,
        expected: Expected,
        jwks_url: str | None,
        algorithms: Sequence[str],
        refresh_seconds: float,
        keep_seconds: float,
        clock: Clock,
        count_reading: Callable[[bool], None] = lambda _worked: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._client = client
        self._redeeming = redeeming
        self._expected = expected
        self._jwks_url = jwks_url
        self._algorithms = tuple(algorithms)
        self._clock = clock

        def keep(read: Callable[[], Awaitable[T]], what: str, count: Callable[[bool], None]) -> KeptDocument[T]:
            return KeptDocument(
                read,
                refresh_seconds=refresh_seconds,
                keep_seconds=keep_seconds,
                retry_seconds=retry_seconds,
                boot=clock.boot,
                outage=Outage("identity_provider", what),
                count=count,
            )

        self._metadata = keep(self._read_metadata, "identity_provider_metadata", lambda _worked: None)
        self._keys = keep(self._read_keys, "identity_provider", count_reading)

    @property
    def issuer(self) -> str:
        """As its tokens name it, and as owners carry it."""
        return self._expected.issuer

    async def verify(self, text: str, audience: str | None = None) -> ProviderClaims:
        """The claims of a token. `audience`: for whom it must be made; None: for the management API.

        Raises CredentialError, and UnavailableError where the provider's keys cannot be known. The answer is good for
        the time of one request: the token may end with the next second.
        """
        token = parse_token(text, self._algorithms)
        key = await self._get_key(token)
        expected = replace(self._expected, audience=audience) if audience is not None else self._expected
        return judge_claims(prove(token, key), expected, self._clock.wall())

    async def get_metadata(self) -> ProviderMetadata:
        """Where things are at the provider. Raises UnavailableError."""
        try:
            return await self._metadata.get()
        except ProviderError as error:
            raise _unreachable() from error

    async def redeem(self, code: str, client: ProviderPage, *, verifier: str) -> ProviderClaims:
        """Who signed in at the provider for the page: the claims of the ID token that the code is traded for (OpenID
        Connect Core section 3.1.3). A code that it does not take counts against its address. Raises CredentialError,
        UnavailableError."""
        metadata = await self.get_metadata()
        if metadata.token_url is None:
            raise _unreachable()
        try:
            form, headers = form_redemption(code, client, metadata, verifier)
            status, body = await self._redeeming.post(metadata.token_url, form, headers)
            return await self.verify(parse_id_token(status, body), audience=client.client_id)
        except ProviderError as error:
            log.warning("code_not_redeemed", error=str(error))
            raise _unreachable() from error

    async def aclose(self) -> None:
        """Give up what is being read; whoever waits for it is told 503."""
        await self._keys.aclose()
        await self._metadata.aclose()
        await self._client.aclose()
        await self._redeeming.aclose()

    async def _get_key(self, token: PresentedToken) -> VerificationKey:
        """The key that should prove this token. Raises CredentialError, UnavailableError."""
        key = await self._find_key(token)
        if key is None:
            await self._keys.renew()
            key = await self._find_key(token)
        if key is None:
            raise _unreachable() if self._keys.fails else refuse("it is signed by no key of the provider's")
        return key

    async def _find_key(self, token: PresentedToken) -> VerificationKey | None:
        try:
            return (await self._keys.get()).find(token.kid, token.algorithm)
        except ProviderError as error:
            raise _unreachable() from error
        except ValueError:
            raise refuse("it does not say by which key it is signed (`kid`)") from None

    async def _read_metadata(self) -> ProviderMetadata:
        return parse_metadata(await self._client.get(self.issuer.rstrip("/") + METADATA_PATH), self.issuer)

    async def _read_keys(self) -> KeySet:
        url = self._jwks_url or (await self._metadata.get()).jwks_url
        return parse_keys(await self._client.get(url), self._algorithms)


def _unreachable() -> UnavailableError:
    return UnavailableError(
        Reason.PROVIDER_UNREACHABLE,
        "Tokens cannot be verified right now: the identity provider does not answer.",
        retry_after_seconds=math.ceil(RETRY_SECONDS),
    )
