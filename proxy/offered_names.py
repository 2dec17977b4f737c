"""What may a selector name? Asked of the upstream, in the name of whoever chooses.  [io]

In go a caller and where the policy says that names are listed, out come names, or a sentence that says why there are
none. The policy judges the same GET with the caller's rights, so that nobody learns here what they could not ask for
themselves; nothing of the browser's goes upstream, and of the answer nothing comes back but names. Whatever goes wrong
there offers no names, and refuses nothing: whoever chooses can type.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.errors import Refusal, UpstreamError
from proxy.forwarding import Destination, check_answer, find_destination
from proxy.keys.rights import Caller
from proxy.live_policy import LivePolicy
from proxy.logs import get_logger
from proxy.messages import MAX_DEPTH, decode_json
from proxy.policy import Denied, RouteMatch
from proxy.policy.names import OfferedName, read_names
from proxy.policy.questions import Question, ask
from proxy.policy.rules import Decision
from proxy.policy.scopes import NameList, covers
from proxy.upstream import UpstreamAborted

log = get_logger("management")

PATIENCE_SECONDS: Final = 3.0  # whoever waits longer has typed the name
MAX_BYTES: Final = 1 << 20  # a thousand entries of 1 KiB
MAX_UNDER_WAY: Final = 8  # of this instance: so much of the upstream is taken by people who choose
OK: Final = 200


@dataclass(frozen=True, slots=True)
class Offer:
    """`why_not`: why no names are offered, in words that follow on a colon."""

    names: tuple[OfferedName, ...] = ()
    why_not: str | None = None


class OfferedNames:
    """One instance per process. `patience_seconds`: how long the platform may take for its whole answer."""

    def __init__(
        self,
        destinations: Mapping[str, Destination],
        live: LivePolicy,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._destinations = destinations
        self._live = live
        self._patience_seconds = patience_seconds
        self._under_way = 0

    async def find(self, caller: Caller, names: NameList) -> Offer:
        """What the caller could read there itself. Raises nothing that has to do with the upstream."""
        answer = ask(self._live.enforced, Question("GET", names.target), caller.grants, caller.owner)
        if isinstance(answer.decision, Denied) or answer.match is None:
            return Offer(why_not=_tell_denial(caller, answer.decision))
        if self._under_way >= MAX_UNDER_WAY:
            return Offer(why_not="too many ask the platform at once")
        self._under_way += 1
        try:
            async with asyncio.timeout(self._patience_seconds):
                body = await self._fetch(caller, answer.match, names.target)
            value, _ = decode_json(body, max_depth=MAX_DEPTH)
            return Offer(read_names(value, names))
        except (Refusal, UpstreamAborted, TimeoutError, ValueError) as error:
            upstream = answer.match.route.upstream
            log.warning("names_not_listed", upstream=upstream, error=str(error) or type(error).__name__)
            return Offer(why_not=_tell_failure(error))
        finally:
            self._under_way -= 1

    async def _fetch(self, caller: Caller, match: RouteMatch, target: str) -> bytes:
        """Raises Refusal, UpstreamAborted, ValueError."""
        destination = find_destination(self._destinations, match)
        headers = [("Accept", "application/json"), ("Accept-Encoding", "identity")]
        headers += destination.identity.form(_speak_for(caller, self._live.enforced.tiers))
        call = destination.upstream.open()
        try:
            response = await call.send("GET", destination.base_path + target, headers, b"")
            check_answer(response, match.route.protocol)
            if response.status != OK:
                raise ValueError(f"it answers with status {response.status}")
            body = await response.read_all(MAX_BYTES)
            response.release()
            return body
        finally:
            call.abort()


def _speak_for(caller: Caller, tiers: Mapping[str, frozenset[str]]) -> Caller:
    """Where the provider's token says less of an owner than the table, the upstream is told the less; never a tier that
    opens anything beside the table's."""
    own, claimed = (tiers.get(tier or "", frozenset()) for tier in (caller.owner.tier, caller.claimed_tier))
    if caller.claimed_tier is None or not all(covers(own, scope) for scope in claimed):
        return caller
    return replace(caller, owner=replace(caller.owner, tier=caller.claimed_tier))


def _tell_denial(caller: Caller, decision: Decision) -> str:
    if isinstance(decision, Denied) and decision.smallest is not None:
        return f"{caller.name} does not hold {decision.smallest}"
    return "the policy does not let them be listed"


def _tell_failure(error: Exception) -> str:
    if isinstance(error, UpstreamError):
        return error.detail[:1].lower() + error.detail[1:].removesuffix(".")
    return "the platform does not answer in time" if isinstance(error, TimeoutError) else "its answer cannot be read"
