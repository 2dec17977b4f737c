"""What a decision line says, so that the decision can be made again under another policy.  [pure]

In go a principal, a request as it was judged and what came out, out come the members of its line. What the key's rights
follow from is long and seldom changes: the line names it by a digest, and says it whole in a line of its own when it is
new. Of the request it holds what was read to decide, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from cachetools import LRUCache

from proxy.authorization import Permit
from proxy.errors import DeniedError
from proxy.identity import Claims, KeyId, Owner, Principal
from proxy.messages import Message
from proxy.policy import RouteMatch
from proxy.policy.recorded_fields import MAX_TEXT, Fields, record_params, record_query

MAX_SCOPES: Final = 16  # of one line: a client subscribes to as many resources as it likes
MAX_KEYS: Final = 4096  # about 0.3 kB each
RIGHTS_SECONDS: Final = 3600.0  # so that whoever keeps a day's log need not look for rights in yesterday's
DIGEST_BYTES: Final = 6


def form_decision(
    match: RouteMatch,
    path: str,
    message: Message | None,
    query: Mapping[str, str],
    decided: Permit | DeniedError,
    rights: str,
) -> dict[str, object]:
    """Members of a decision line. `rights`: the digest of the key's. Takes 6 µs (measured, a call with one field)."""
    members: dict[str, object] = {
        "path": path if len(path) <= MAX_TEXT else None,
        "fields": _record(match, message, query),
        "rights": rights,
    }
    if isinstance(decided, Permit):
        scopes = [scope for scope in decided.scopes[:MAX_SCOPES] if len(scope) <= MAX_TEXT]
        return members | {"decision": "allowed", "rule": decided.rule, "scopes": scopes}
    explained = decided.data or {}
    smallest = explained.get("smallest_sufficient")
    return members | {"decision": "denied", "rule": explained.get("rule"), "smallest": smallest}


def _record(match: RouteMatch, message: Message | None, query: Mapping[str, str]) -> Fields | None:
    if message is None or message.method is None:
        return record_query(match.route.query_names, query)
    return record_params(match.route.rules, message.method, message.params)


@dataclass(slots=True)
class _Told:
    claims: Claims
    owner: Owner
    digest: str
    told_at: float


class RightsLog:
    """Which rights stand in the log already. One instance per process."""

    def __init__(self) -> None:
        self._told: LRUCache[KeyId, _Told] = LRUCache(MAX_KEYS)

    def note(self, principal: Principal, now: float) -> tuple[str, Mapping[str, object] | None]:
        """The digest of the key's rights, and at boot time `now` they themselves where the log does not have them."""
        claims, owner = principal.claims, principal.owner
        told = self._told.get(principal.key_id)
        if told is not None and now - told.told_at < RIGHTS_SECONDS:
            if told.claims is claims and told.owner is owner:
                return told.digest, None
            if told.claims == claims and told.owner == owner:
                told.claims, told.owner = claims, owner
                return told.digest, None
        members = form_rights(claims, owner)
        digest = blake2b(json.dumps(members).encode(), digest_size=DIGEST_BYTES).hexdigest()
        self._told[principal.key_id] = _Told(claims, owner, digest, now)
        return digest, {"rights": digest, "key_id": principal.key_id, **members}


def form_rights(claims: Claims, owner: Owner) -> dict[str, object]:
    """What effective scopes, and the conditions on an owner, follow from."""
    return {
        "scopes": claims.scopes,
        "ancestors": claims.ancestors,
        "tier": owner.tier,
        "tenant_id": owner.tenant_id,
        "subject": owner.subject,
    }
