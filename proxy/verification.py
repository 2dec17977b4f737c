"""Whose is it? From a presented credential to a Principal, or a refusal with its reason.  [io]

Cheapest first: proof and state from memory; else the row by id, the fast tag, argon2id. A remembered state decides only
while the lease runs and no news concerns the key; otherwise the row is read again. It knows no route and no policy
beyond "which effective scopes".
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from proxy.clock import Clock, DatabaseClock
from proxy.credentials import PresentedCredential
from proxy.errors import (
    CredentialError,
    DatabaseError,
    DeniedError,
    LimitError,
    Reason,
    Refusal,
    UnavailableError,
    UnprovenError,
)
from proxy.identity import KeyId, OwnerId, Principal
from proxy.keys.digests import Digests
from proxy.keys.hashing import ForeignHashError, Hasher, MismatchError
from proxy.keys.legacy import LegacyToken, find_legacy_secret
from proxy.keys.reader import KeyReader
from proxy.keys.record import KeyRecord, Secret
from proxy.keys.token import Token, fast_tag
from proxy.lease import Lease, Trust
from proxy.limits import EXCEEDED, RETRY_SECONDS
from proxy.logs import get_logger
from proxy.memory import KeyState, Memory, Proof, Rights

log = get_logger("verification")

# News may arrive while a row is being read; each round begins after the last, so more than a few means a storm on this
# very key, and then "unknown" is the truth.
MAX_READS = 5
WORDS = {
    Reason.KEY_REVOKED: "This API key was revoked. Revocation is final: ask its owner for a new key.",
    Reason.KEY_EXPIRED: "This API key has expired. Ask its owner for a new one.",
    Reason.KEY_DISABLED: "This API key is disabled. Its owner can enable it again.",
    Reason.SECRET_RETIRED: "This API key was rotated and its old secret no longer works. Use the new one.",
    Reason.OWNER_DISABLED: "The account this API key belongs to is disabled.",
}


def refuse_key(reason: Reason, key_id: KeyId | None = None, owner_id: OwnerId | None = None) -> CredentialError:
    """The refusal for a key whose secret was proven but which may not be used."""
    refusal = CredentialError(reason, WORDS[reason])
    refusal.key_id, refusal.owner_id = key_id, owner_id
    return refusal


def refuse_unknown(*, proven: bool = False) -> CredentialError:
    """One answer for an unknown id and a wrong secret. `proven`: whoever asks held the right one, by its tag at least,
    and the row is what is wrong."""
    return (CredentialError if proven else UnprovenError)(Reason.CREDENTIAL_INVALID, "This API key is not valid.")


def refuse_ended(reason: Reason, rpc_id: str | int | None = None) -> Refusal:
    """The refusal that tells a client why its call was ended under way."""
    if reason in WORDS:
        refusal: Refusal = refuse_key(reason)
    elif reason is Reason.RIGHTS_CHANGED:
        refusal = DeniedError(reason, "While this ran, the API key lost the right to it.")
    elif reason is Reason.ADDRESS_NOT_ALLOWED:
        refusal = DeniedError(reason, "While this ran, the API key lost the right to be used from here.")
    elif reason in EXCEEDED.values():
        detail = "While this ran, the API key was limited to fewer at once, and this was begun after the others."
        refusal = LimitError(reason, detail, retry_after_seconds=RETRY_SECONDS)
    elif reason is Reason.CREDENTIAL_INVALID:
        refusal = Refusal(reason, "This API key is no longer valid.")
    else:
        words = {Reason.DRAINING: "This instance is shutting down; the call can be made again."}
        refusal = UnavailableError(
            reason, words.get(reason, "The state of this API key cannot be read right now."), retry_after_seconds=1
        )
    refusal.rpc_id = rpc_id
    return refusal


class Verifier:
    """`rights` gives the effective scopes of a record. `count_memory(hit)` is told whether memory sufficed."""

    def __init__(
        self,
        *,
        memory: Memory,
        reader: KeyReader,
        digests: Digests,
        hasher: Hasher,
        lease: Lease,
        clock: Clock,
        database_clock: DatabaseClock,
        rights: Rights,
        count_memory: Callable[[bool], None] = lambda _hit: None,
    ) -> None:
        self._memory = memory
        self._reader = reader
        self._digests = digests
        self._hasher = hasher
        self._lease = lease
        self._clock = clock
        self._database_clock = database_clock
        self._rights = rights
        self._count_memory = count_memory
        self._flights: dict[bytes, asyncio.Task[Proof]] = {}

    async def verify(self, presented: PresentedCredential) -> Principal:
        """The Principal whose key this is. Raises CredentialError, UnavailableError.

        When it returns without having awaited, the answer holds until the caller's next await.
        """
        token = presented.token
        digest = self._memory.digest(token.text)
        principal = self._recall(digest)
        self._count_memory(principal is not None)
        return principal or await self._verify_slowly(token, digest)

    async def get_record(self, key_id: KeyId) -> KeyRecord:
        """A key's row as it may be believed now, for whoever proved its secret before. Raises CredentialError,
        UnavailableError."""
        state, _ = await self._get_state(key_id, proven=True)
        if state.record is None:
            raise refuse_unknown(proven=True)
        return state.record

    def _recall(self, digest: bytes) -> Principal | None:
        """The hot path: None unless memory alone may decide, and decides well."""
        now = self._clock.boot()
        if now >= self._lease.trusted_until:
            return None
        proof = self._memory.find_proof(digest)
        state = self._memory.find_state(proof.key_id, now) if proof else None
        if proof is None or state is None or state.record is None:
            return None
        return self._form_principal(state, state.record, proof, now)

    async def _verify_slowly(self, token: Token | LegacyToken, digest: bytes) -> Principal:
        proof = self._memory.find_proof(digest)
        asked_at, not_before = self._clock.boot(), -math.inf
        for _ in range(MAX_READS):
            key_id = proof.key_id if proof is not None else await self._find_key_id(token)
            state, now = await self._get_state(key_id, proven=proof is not None, not_before=not_before)
            if isinstance(token, LegacyToken) and proof is not None and not _holds(state.record, token):
                proof = None  # it may be another key's now: only a token of our own form names its key
                continue
            if state.record is None:
                raise refuse_unknown(proven=proof is not None)
            if proof is None or not _still_fits(proof, state.record):
                if state.read_at < asked_at and not _may_hold(state.record, token):
                    not_before = asked_at  # it may be a new secret, used before the news of its rotation is here
                    continue
                proof = await self._prove(token, digest, state.record)
                continue  # hashing took its time: look at the state again
            principal = self._form_principal(state, state.record, proof, now)
            if principal is None:
                fault = self._find_fault(state.record, proof, now) or Reason.SECRET_RETIRED
                raise refuse_key(fault, key_id, state.record.owner.id)
            return principal
        raise _state_unknown()

    async def _find_key_id(self, token: Token | LegacyToken) -> KeyId:
        """Whose the token says it is, or whose its digest is. Raises UnavailableError, CredentialError."""
        if isinstance(token, Token):
            return token.key_id
        try:
            found = await self._digests.find_key(token.digest, trusted=self._get_trust() is Trust.TRUSTED)
        except DatabaseError as error:
            log.warning("digest_look_up_failed", error=str(error))
            raise _state_unknown() from error
        if found is None:
            raise refuse_unknown()
        return found

    def _get_trust(self) -> Trust:
        """What memory is worth now. Raises UnavailableError once not even the database may be asked."""
        trust = self._lease.judge(self._clock.boot())
        if trust is Trust.CLOSED:
            raise UnavailableError(
                Reason.DATABASE_SILENT,
                "Keys cannot be verified right now: the key database does not answer.",
                retry_after_seconds=2,
            )
        return trust

    async def _get_state(self, key_id: KeyId, *, proven: bool, not_before: float = -math.inf) -> tuple[KeyState, float]:
        """A state that may decide at the returned boot time, and was read at `not_before` or later. Raises
        UnavailableError, CredentialError."""
        for _ in range(MAX_READS):
            now = self._clock.boot()
            trust = self._get_trust()
            state = self._memory.find_state(key_id, now) if trust is Trust.TRUSTED else None
            if state is not None and state.read_at >= not_before:
                return state, now
            try:
                state = await self._reader.read(key_id)
            except DatabaseError as error:
                log.warning("key_read_failed", key_id=key_id, error=str(error))
                raise _state_unknown() from error
            if not self._memory.keep_state(state):
                if self._memory.is_revoked(key_id):
                    raise refuse_key(Reason.KEY_REVOKED, key_id) if proven else refuse_unknown()
                log.error("key_row_older_than_seen", key_id=key_id)
                raise _state_unknown()
            if trust is Trust.READ_THROUGH and self._memory.find_state(key_id, now) is state:
                return state, self._clock.boot()  # read after the request came, and nothing was said since
        raise _state_unknown()

    async def _prove(self, token: Token | LegacyToken, digest: bytes, record: KeyRecord) -> Proof:
        """Which secret of the record the token holds. One hash per token at a time, whoever leaves meanwhile."""
        if isinstance(token, LegacyToken):
            return self._prove_legacy(token, digest, record)
        flight = self._flights.get(digest)
        if flight is None:
            flight = asyncio.create_task(self._hash(token, digest, record))
            self._flights[digest] = flight
            flight.add_done_callback(lambda done: self._land(digest, done))
        return await asyncio.shield(flight)

    def _prove_legacy(self, token: LegacyToken, digest: bytes, record: KeyRecord) -> Proof:
        secret = find_legacy_secret(token, record)
        if secret is None:  # taken away between the look-up and the read
            raise refuse_unknown()
        return self._keep_proof(digest, record, secret)

    def _keep_proof(self, digest: bytes, record: KeyRecord, secret: Secret) -> Proof:
        proof = Proof(record.id, secret.version, secret.hash)
        self._memory.keep_proof(digest, proof)
        return proof

    def _land(self, digest: bytes, flight: asyncio.Task[Proof]) -> None:
        del self._flights[digest]
        if not flight.cancelled():
            flight.exception()  # all who asked may have left

    async def _hash(self, token: Token, digest: bytes, record: KeyRecord) -> Proof:
        secret = record.find_tagged(fast_tag(token.key_id, token.secret))
        if secret is None:
            raise refuse_unknown()
        await self._check_secret(token, secret)
        return self._keep_proof(digest, record, secret)

    async def _check_secret(self, token: Token, secret: Secret) -> None:
        try:
            await self._hasher.verify(secret.hash, token.secret)
        except MismatchError as error:
            # One in 2^32 by chance: rather a row whose tag and hash were not made together.
            log.error("argon2_failed_after_tag_matched", key_id=token.key_id)
            raise refuse_unknown(proven=True) from error
        except ForeignHashError as error:
            log.error("argon2_string_not_ours", key_id=token.key_id, error=str(error))
            raise refuse_unknown(proven=True) from error

    def _form_principal(self, state: KeyState, record: KeyRecord, proof: Proof, now: float) -> Principal | None:
        """None when the key or the secret may not be used at boot time `now`."""
        if not _still_fits(proof, record) or self._find_fault(record, proof, now) is not None:
            return None
        return state.get_principal(proof.secret_version, self._rights)

    def _find_fault(self, record: KeyRecord, proof: Proof, now: float) -> Reason | None:
        return record.find_use_fault(proof.secret_version, self._database_clock.now(now))

    async def aclose(self) -> None:
        """Let the hashes under way end."""
        if self._flights:
            await asyncio.wait(self._flights.values())


def _may_hold(record: KeyRecord, token: Token | LegacyToken) -> bool:
    """Whether it is worth asking the record's hashes, or, of a token found by its digest, the record itself."""
    return isinstance(token, LegacyToken) or record.find_tagged(fast_tag(token.key_id, token.secret)) is not None


def _still_fits(proof: Proof, record: KeyRecord) -> bool:
    """A proof is about one stored hash: a row changed by hand is proven anew."""
    secret = record.secrets.get(proof.secret_version)
    return secret is None or secret.hash == proof.hash


def _holds(record: KeyRecord | None, token: LegacyToken) -> bool:
    return record is not None and find_legacy_secret(token, record) is not None


def _state_unknown() -> UnavailableError:
    return UnavailableError(
        Reason.STATE_UNKNOWN, "The state of this API key cannot be read right now.", retry_after_seconds=1
    )
