"""Who signed in at the platform's identity provider?  [io]

In goes a bearer token, out come the claims the provider vouches for, or a refusal. The provider's public keys are read
over HTTP when they are first needed, when they are old, and when a token names one that is not among them, though
never twice within a moment: whoever makes ids up must not make us storm the provider. One reading at a time serves all
who ask. While the provider is away its last keys go on for a bounded time, and then the answer is 503, not 401: what we
cannot know is no reason to throw a sign-in away.

What an owner may do is not known here; `keys/rights` makes a caller of the claims and the owner's row.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from proxy.clock import Clock
from proxy.errors import Reason, UnavailableError
from proxy.logs import get_logger
from proxy.outages import Outage
from proxy.provider_client import ProviderClient
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

METADATA_PATH: Final = "/.well-known/openid-configuration"
# Between two readings, whatever asks for them. Providers publish keys before they sign with them, by far more.
RETRY_SECONDS: Final = 10.0


class IdentityProvider:
    """`jwks_url`: where its keys are; None: where its metadata says. `count_reading(worked)` hears of each reading."""

    def __init__(
        self,
        client: ProviderClient,
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
        self._expected = expected
        self._jwks_url = jwks_url
        self._algorithms = tuple(algorithms)
        self._refresh_seconds = refresh_seconds
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._count_reading = count_reading
        self._retry_seconds = retry_seconds
        self._keys = KeySet(())
        self._read_at = -math.inf  # boot time at which the reading of the keys at hand began
        self._tried_at = -math.inf
        self._flight: asyncio.Task[None] | None = None
        self._outage = Outage("identity_provider", "identity_provider")

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

    async def read_metadata(self) -> ProviderMetadata:
        """Where things are at the provider. Raises ProviderError."""
        body = await self._client.get(self.issuer.rstrip("/") + METADATA_PATH)
        return parse_metadata(body, self.issuer)

    async def aclose(self) -> None:
        """Give up what is being read; whoever waits for it is told 503."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait({self._flight})
        await self._client.aclose()

    async def _get_key(self, token: PresentedToken) -> VerificationKey:
        """The key that should prove this token. Raises CredentialError, UnavailableError."""
        if self._age_seconds >= self._refresh_seconds:
            await self._refresh()
        if self._age_seconds >= self._keep_seconds:
            raise _unreachable()
        key = self._find_key(token)
        if key is None:
            await self._refresh()
            key = self._find_key(token)
        if key is None:
            raise _unreachable() if self._outage.lasts else refuse("it is signed by no key of the provider's")
        return key

    @property
    def _age_seconds(self) -> float:
        return self._clock.boot() - self._read_at

    def _find_key(self, token: PresentedToken) -> VerificationKey | None:
        try:
            return self._keys.find(token.kid, token.algorithm)
        except ValueError:
            raise refuse("it does not say by which key it is signed (`kid`)") from None

    async def _refresh(self) -> None:
        """Read the keys anew, or join who does, unless that was tried a moment ago."""
        if self._flight is None:
            if self._clock.boot() < self._tried_at + self._retry_seconds:
                return
            self._flight = asyncio.create_task(self._read())
            self._flight.add_done_callback(self._land)
        await asyncio.wait({self._flight})  # whoever leaves meanwhile leaves the reading to the others

    def _land(self, _flight: asyncio.Task[None]) -> None:
        self._flight = None

    async def _read(self) -> None:
        self._tried_at = began_at = self._clock.boot()
        try:
            keys = await self._read_keys()
        except ProviderError as error:
            self._note_failure(error)
        except Exception:  # nothing may pass, nor look like a token's fault, because a check fell over
            log.exception("reading_provider_keys_failed")
            self._note_failure(ProviderError("its keys could not be read"))
        else:
            self._keys, self._read_at = keys, began_at
            self._outage.end()
            self._count_reading(True)

    def _note_failure(self, error: ProviderError) -> None:
        self._outage.begin(error)
        self._count_reading(False)

    async def _read_keys(self) -> KeySet:
        url = self._jwks_url or (await self.read_metadata()).jwks_url
        return parse_keys(await self._client.get(url), self._algorithms)


def _unreachable() -> UnavailableError:
    return UnavailableError(
        Reason.PROVIDER_UNREACHABLE,
        "Tokens cannot be verified right now: the identity provider does not answer.",
        retry_after_seconds=math.ceil(RETRY_SECONDS),
    )
