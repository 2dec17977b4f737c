"""Who asks for something to be done to keys?  [io]

In goes what was presented, out comes a `Caller` with the rights it has now, or a refusal. An API key is verified as on
the data path, by the same `Verifier`; a token by the provider's keys. The rights are read from the key's row or the
owner's, and once more by `keys.changes` inside every transaction that rests on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from proxy.client_address import ClientAddress
from proxy.credentials import PresentedCredential, PresentedText
from proxy.errors import Reason, UnprovenError
from proxy.identity import KeyId, OwnerId
from proxy.identity_provider import IdentityProvider
from proxy.keys.constraints import Constraints
from proxy.keys.owners import Owners
from proxy.keys.record import KeyRecord, OwnerRecord
from proxy.keys.rights import Caller, CallerError, form_caller_of_claims, form_caller_of_key
from proxy.keys.store import KeyStore
from proxy.limits import Constrained
from proxy.live_policy import LivePolicy
from proxy.management.faults import refuse_caller
from proxy.provider_tokens import ProviderClaims
from proxy.verification import Verifier, refuse_key, refuse_unknown


class _Held(NamedTuple):
    """A key in the hands of whoever signed in by it."""

    key_id: KeyId
    constrained: tuple[tuple[KeyId, Constraints], ...]


class Callers:
    """`provider`: None where API keys alone manage keys. `now`: seconds since the epoch, by the database's clock.
    `admit`: the gate of the data path; what a key asks here counts there, too."""

    def __init__(
        self,
        *,
        verifier: Verifier,
        admit: Callable[[Constrained, ClientAddress | None], None],
        store: KeyStore,
        owners: Owners,
        provider: IdentityProvider | None,
        live: LivePolicy,
        now: Callable[[], float],
    ) -> None:
        self._verifier = verifier
        self._admit = admit
        self._store = store
        self._owners = owners
        self._provider = provider
        self._live = live
        self._now = now

    async def find(self, presented: PresentedCredential | PresentedText, address: ClientAddress | None) -> Caller:
        """Raises Refusal, DatabaseError."""
        if isinstance(presented, PresentedCredential):
            return await self._find_key(presented, address)
        if self._provider is None:
            raise UnprovenError(Reason.CREDENTIAL_MALFORMED, "This is not an Aegis API key, and tokens are not taken.")
        return await self.find_owner(await self._provider.verify(presented.text))

    async def find_owner(self, claims: ProviderClaims) -> Caller:
        """The owner who signed in, as the row has them now. Raises Refusal, DatabaseError."""
        record = await self._owners.find(claims.issuer, claims.subject)
        return self._form_owner(record, claims.tenant_id, claims.tier, claims.role)

    async def find_owner_again(
        self, owner_id: OwnerId, *, tenant_id: str | None, tier: str | None, role: str | None
    ) -> Caller:
        """The same for a sign-in that lasts, with what its token said. Raises Refusal, DatabaseError."""
        return self._form_owner(await self._owners.find_by_id(owner_id), tenant_id, tier, role)

    async def find_key_again(self, key_id: KeyId, secret_version: int, address: ClientAddress | None) -> Caller:
        """The same for a sign-in by a key: as its row may be believed now. Raises Refusal."""
        record = await self._verifier.get_record(key_id)
        caller = self._form_key(record, secret_version)
        self._admit(_Held(record.id, record.constrained), address)
        return caller

    def _form_owner(
        self, record: OwnerRecord | None, tenant_id: str | None, tier: str | None, role: str | None
    ) -> Caller:
        try:
            return form_caller_of_claims(record, self._live.enforced, tenant_id=tenant_id, tier=tier, role=role)
        except CallerError as error:
            raise refuse_caller(error) from error

    def _form_key(self, record: KeyRecord, secret_version: int) -> Caller:
        fault = record.find_use_fault(secret_version, self._now())
        if fault is not None:
            raise refuse_key(fault)
        return form_caller_of_key(record, self._live.enforced, secret_version)

    async def _find_key(self, presented: PresentedCredential, address: ClientAddress | None) -> Caller:
        principal = await self._verifier.verify(presented)
        self._admit(principal, address)
        record = await self._store.find_record(principal.key_id)
        if record is None:
            raise refuse_unknown()
        return self._form_key(record, principal.secret_version)
