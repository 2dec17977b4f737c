"""What has been learnt about keys, and for how long it may be believed.  [pure]

Two layers. A *proof* says "this token's digest matches this argon2 string of that key": immutable, least recently used
out first, keyed by a digest under a random key of this process, never by the token. A *state* says what the key may do:
believed only while no news concerns it, and no longer than `max_age_seconds` even so, which bounds whatever escaped
the news. *Floors* are versions seen lately, of keys and owners: an older row, such as a lagging replica's, is not
believed. What was seen revoked stays so for good, whatever a row says.
Nothing here reads a clock or the database. cachetools is not thread-safe: one event loop's thread only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import LRUCache, TTLCache

from proxy.identity import Claims, KeyId, Principal
from proxy.keys.record import KeyRecord
from proxy.news import NewsLog

# How long an older row is not believed: longer than any replica lags, and then a backup that was restored counts.
FLOOR_SECONDS = 600.0
# What a key may do, given its record: the policy's to say.
Rights = Callable[[KeyRecord], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Proof:
    """The token matched this secret version of this key, as it was hashed then."""

    key_id: KeyId
    secret_version: int
    hash: str = field(repr=False)


@dataclass(slots=True)
class KeyState:
    """A key's record (None: there is no such key), and when it was read: news sequence and boot time.

    `principals` holds one value per valid secret version, made when first asked for.
    """

    key_id: KeyId
    record: KeyRecord | None
    read_sequence: int
    read_at: float
    subjects: tuple[str, ...] = ()
    principals: dict[int, Principal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.record is None:
            self.subjects = (self.key_id,)
        else:
            ancestors = (ancestor.id for ancestor in self.record.ancestors)
            self.subjects = (self.key_id, *ancestors, self.record.owner.id)

    def get_principal(self, secret_version: int, rights: Rights) -> Principal:
        """The Principal this state stands for, under one of its valid secrets. The caller has found no fault."""
        principal = self.principals.get(secret_version)
        if principal is None:
            assert self.record is not None
            principal = self.principals[secret_version] = Principal(
                key_id=self.key_id,
                owner=self.record.owner,
                grants=rights(self.record),
                ancestors=tuple(ancestor.id for ancestor in self.record.ancestors),
                secret_version=secret_version,
                ends=self.record.find_end(secret_version),
                read_at=self.read_at,
                claims=Claims(self.record.scopes, tuple(ancestor.scopes for ancestor in self.record.ancestors)),
                constrained=self.record.constrained,
            )
        return principal


class Memory:
    """Proofs, states and floors. `digest_key`: 32 random bytes of this process."""

    def __init__(
        self,
        news: NewsLog,
        *,
        digest_key: bytes,
        max_proofs: int,
        max_states: int,
        max_unknown: int,
        unknown_seconds: float,
        max_age_seconds: float,
        timer: Callable[[], float],
    ) -> None:
        self._news = news
        self._digest_key = digest_key
        self._max_age_seconds = max_age_seconds
        self._proofs: LRUCache[bytes, Proof] = LRUCache(max_proofs)
        self._states: LRUCache[KeyId, KeyState] = LRUCache(max_states)
        # Unknown ids have a small shelf of their own: a flood of them must not push real keys out.
        self._unknown: TTLCache[KeyId, KeyState] = TTLCache(max_unknown, unknown_seconds, timer)
        # An owner's beside its key's.
        self._floors: TTLCache[str, int] = TTLCache(2 * max_states, FLOOR_SECONDS, timer)
        self._revoked: set[KeyId] = set()  # of rows that exist: a flood of made-up ids adds none

    def digest(self, token_text: str) -> bytes:
        """What stands for a token in memory."""
        return hashlib.blake2b(token_text.encode("ascii"), key=self._digest_key, digest_size=16).digest()

    def find_proof(self, digest: bytes) -> Proof | None:
        """The proof for a token's digest, if it was ever verified."""
        return self._proofs.get(digest)

    def keep_proof(self, digest: bytes, proof: Proof) -> None:
        """Remember that a token was verified."""
        self._proofs[digest] = proof

    def find_state(self, key_id: KeyId, now: float) -> KeyState | None:
        """What is known of a key and may still be believed at boot time `now`."""
        state = self._states.get(key_id) or self._unknown.get(key_id)
        if state is None or now - state.read_at >= self._max_age_seconds:
            return None
        return state if self._news.is_current(state.read_sequence, state.subjects) else None

    def keep_state(self, state: KeyState) -> bool:
        """Remember what a read found. False: the row is older than one already seen, and is not believed."""
        record = state.record
        known = self._states.get(state.key_id)
        if known is not None and known.read_at > state.read_at and (record is None or record.status != "revoked"):
            return True  # a later read was quicker: what it found stays, unless this one knows the end
        if record is None:
            self._states.pop(state.key_id, None)
            self._unknown[state.key_id] = state
            return True
        versions, revoked = record.versions, record.revoked_ids
        if not revoked and any(
            subject in self._revoked or version < self._floors.get(subject, 0) for subject, version in versions.items()
        ):
            return False
        for subject, version in versions.items():  # a revoked key's row is believed however old: it lowers nothing
            self._floors[subject] = max(version, self._floors.get(subject, 0))
        self._revoked.update(revoked)
        self._unknown.pop(record.id, None)
        self._states[record.id] = state
        return True

    def is_revoked(self, key_id: KeyId) -> bool:
        """True once this process has seen the key revoked: no later row brings it back."""
        return key_id in self._revoked
