"""Who asks for something to be done to keys?  [io]

In goes what was presented, out comes a `Caller` with the rights it has now, or a refusal. An API key is verified as on
the data path, by the same `Verifier`. The rights are read from the key's row, and once more by `keys.changes` inside
every transaction that rests on them.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.credentials import PresentedCredential
from proxy.keys.rights import Caller, form_caller_of_key
from proxy.keys.store import KeyStore
from proxy.live_policy import LivePolicy
from proxy.verification import Verifier, refuse_key, refuse_unknown


class Callers:
    """`now`: seconds since the epoch, by the database's clock."""

    def __init__(self, *, verifier: Verifier, store: KeyStore, live: LivePolicy, now: Callable[[], float]) -> None:
        self._verifier = verifier
        self._store = store
        self._live = live
        self._now = now

    async def find(self, presented: PresentedCredential) -> Caller:
        """Raises CredentialError, UnavailableError, DatabaseError."""
        principal = await self._verifier.verify(presented)
        record = (await self._store.read_keys([principal.key_id])).get(principal.key_id)
        if record is None:
            raise refuse_unknown()
        fault = record.find_use_fault(principal.secret_version, self._now())
        if fault is not None:
            raise refuse_key(fault)
        return form_caller_of_key(record, self._live.enforced, principal.secret_version)
