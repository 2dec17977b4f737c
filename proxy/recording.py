"""What is written down about every request: one decision line, one count, and what the candidate would have said.  [io]

In go what became known of a request on its way through the front door, and how it ended; out go a log line, figures,
the denials for the audit, the use of rights for whoever narrows keys, and of keys for whoever watches them. Nothing is
decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from proxy.alarms import Alarm, Alarms
from proxy.audit import Audit
from proxy.authorization import Permit
from proxy.challenges import Dialect
from proxy.client_address import ClientAddress
from proxy.clock import Clock
from proxy.credentials import MisplacedKeyError
from proxy.decision_records import RightsLog, form_decision
from proxy.envelope import Target
from proxy.errors import CredentialError, DeniedError, LimitError, Reason, Refusal
from proxy.expiry_warnings import ExpiryWarnings
from proxy.identity import KeyId, OwnerId, Principal
from proxy.keys.last_uses import LastUseLog
from proxy.keys.networks import Networks
from proxy.keys.rights import Caller
from proxy.live_policy import Flip, LivePolicy
from proxy.logs import get_logger
from proxy.messages import Message
from proxy.metrics import Metrics
from proxy.policy import RouteMatch
from proxy.policy.questions import Question
from proxy.usage import Usage
from proxy.verification import WORDS

log = get_logger("decision")

MANAGEMENT: Final = "management"  # in place of a route
PLAIN = Dialect(json_rpc=False)
MAX_LOGGED_NAME = 200  # characters: methods that name nothing do not bound what stands under `name`
UNDECIDED: Final[Mapping[str, object]] = MappingProxyType({"rule": None})
UNSERVED = frozenset({Reason.ROUTE_UNKNOWN, Reason.METHOD_NOT_ALLOWED})


@dataclass(slots=True)
class Passage:
    """What becomes known of one request on its way: the decision line, and how to say no.

    `key_id` is the one presented, verified or not: whoever watches a key wants to see its refusals, too. Of a message
    by HTTP+SSE, `session` is the one its URL names, and `message_target` where that takes its messages upstream.
    """

    request_id: str
    started: float
    http: str
    policy: str  # the revision that decides
    user_agent: str | None = None
    address: ClientAddress | None = None  # None: a Unix socket, or not known yet
    target: Target | None = field(default=None, repr=False)
    match: RouteMatch | None = None
    endpoint: str | None = None  # of the management API
    key_id: KeyId | None = None
    message: Message | None = None
    permit: Permit | None = None
    rpc_id: str | int | None = None
    ended: Reason | None = None
    session: tuple[str, bytes] | None = None
    message_target: str | None = field(default=None, repr=False)
    dialect: Dialect = field(default=PLAIN)
    warnings: tuple[tuple[str, str], ...] = ()  # headers that an answer to this key has beside its own
    decision: Mapping[str, object] = field(default_factory=lambda: UNDECIDED, repr=False)  # what its line says of it

    @property
    def outcome(self) -> str:
        """Of one that was answered without a refusal."""
        answered = "forwarded" if self.match else "published"
        return self.ended or ("managed" if self.endpoint is not None else answered)


class Recorder:
    """One instance per process."""

    def __init__(
        self,
        *,
        live: LivePolicy,
        usage: Usage,
        audit: Audit,
        last_uses: LastUseLog,
        networks: Networks,
        alarms: Alarms,
        expiry: ExpiryWarnings,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._live = live
        self._usage = usage
        self._audit = audit
        self._last_uses = last_uses
        self._networks = networks
        self._alarms = alarms
        self._expiry = expiry
        self._metrics = metrics
        self._clock = clock
        self._rights = RightsLog()
        self._log = log.bind()  # once: a lazy logger is assembled anew for every line

    def start(self, http: str, request_id: str, user_agent: str | None) -> Passage:
        """The blank page for a request that has just come in."""
        return Passage(request_id, self._clock.boot(), http, self._live.enforced.revision, user_agent)

    def note_end(self, passage: Passage, key_id: KeyId, end: float | None) -> None:
        """A verified key, and when it or its secret ends: its answers warn when that is soon."""
        passage.warnings = self._expiry.warn(key_id, end)

    def note_decision(
        self, passage: Passage, principal: Principal, query: Mapping[str, str], decided: Permit | DeniedError
    ) -> None:
        """The policy in force has spoken. Must be called in the same step."""
        self._keep_decision(passage, principal, query, decided)
        if isinstance(decided, Permit):
            self._usage.count(principal.key_id, decided.rule, decided.scopes, allowed=True)
            what = _get_name(passage.message) or (passage.message and passage.message.method)
            assert passage.match is not None
            self._note_use(passage, principal.key_id, principal.secret_version, what or passage.match.route.id)
        else:
            self._note_denial(passage, principal, decided)
        if self._live.candidate is not None:
            self._compare(passage, principal, allowed=isinstance(decided, Permit))

    def _note_use(self, passage: Passage, key_id: KeyId, secret_version: int, what: str) -> None:
        address, user_agent = passage.address, passage.user_agent
        self._last_uses.note_use(key_id, secret_version, what, address, user_agent)
        if address is not None:
            self._networks.meet(key_id, secret_version, address, user_agent, passage.request_id)

    def note_refusal(self, passage: Passage, refusal: Refusal) -> None:
        """The walk has ended. Of a key it is told only when its secret was right: anybody may name one."""
        if passage.key_id is not None and (isinstance(refusal, DeniedError | LimitError) or refusal.reason in WORDS):
            self._last_uses.note_refusal(passage.key_id, refusal.reason, passage.address, passage.user_agent)
        if isinstance(refusal, MisplacedKeyError) and refusal.token is not None:
            self._alarms.look_at(refusal.token, passage.address, passage.request_id)
        elif isinstance(refusal, CredentialError) and refusal.reason is Reason.SECRET_RETIRED:
            self._tell_replay(passage, refusal)

    def _tell_replay(self, passage: Passage, refusal: CredentialError) -> None:
        """A call whose secret ran out under way names no key, and is none."""
        if refusal.key_id is not None and refusal.owner_id is not None:
            key_id, owner_id = KeyId(refusal.key_id), OwnerId(refusal.owner_id)
            self._alarms.tell(Alarm.SECRET_REPLAYED, key_id, owner_id, passage.address, passage.request_id)

    def _keep_decision(
        self, passage: Passage, principal: Principal, query: Mapping[str, str], decided: Permit | DeniedError
    ) -> None:
        """For the line, so that `policy replay` can decide it again."""
        match, target, message = passage.match, passage.target, passage.message
        assert match is not None
        assert target is not None
        if message is not None and message.method is None:  # an answer to the server asks for nothing
            passage.decision = {"rule": decided.rule} if isinstance(decided, Permit) else UNDECIDED
            return
        digest, rights = self._rights.note(principal, self._clock.boot())
        if rights is not None:
            self._log.info("rights", **rights)
        passage.decision = form_decision(match, target.path, message, query, decided, digest)

    def _note_denial(self, passage: Passage, principal: Principal, denial: DeniedError) -> None:
        explained = denial.data or {}
        smallest = explained.get("smallest_sufficient")
        scopes = () if smallest is None else (smallest,)
        self._usage.count(principal.key_id, explained.get("rule"), scopes, allowed=False)
        self._audit.note_denial(principal.key_id, principal.owner.id, denial, passage.request_id)

    def note_management(
        self, passage: Passage, caller: Caller, scopes: Iterable[str], denial: DeniedError | None = None
    ) -> None:
        """Someone was let manage keys, resting on these scopes; or was denied it for want of them."""
        rule = f"{MANAGEMENT}/{passage.endpoint}"
        passage.decision = {"rule": rule}
        if denial is not None:
            self._audit.note_denial(caller.key_id, caller.owner.id, denial, passage.request_id)
        if caller.key_id is None or caller.secret_version is None:
            return  # whoever signed in has no key to be counted for
        self._usage.count(caller.key_id, rule, tuple(scopes), allowed=denial is None)
        if denial is None:
            self._note_use(passage, caller.key_id, caller.secret_version, rule)

    def _compare(self, passage: Passage, principal: Principal, *, allowed: bool) -> None:
        """Hear the candidate, too. Whatever goes wrong with it is its own fault, and said."""
        message, candidate = passage.message, self._live.candidate
        if passage.target is None or candidate is None or (message is not None and message.method is None):
            return  # an answer to the server asks for nothing
        rpc, params = (message.method, message.params) if message is not None else (None, {})
        question = Question(passage.http, passage.target.text, rpc, params)
        try:
            flip = candidate.find_flip(question, principal, allowed=allowed)
        except Exception:
            log.exception("candidate_failed", request_id=passage.request_id)
            return
        if flip is not None:
            self._tell_flip(passage, flip)

    def _tell_flip(self, passage: Passage, flip: Flip) -> None:
        self._metrics.count_flip(opens=flip.opens)
        self._log.warning(
            "policy_flip",
            request_id=passage.request_id,
            verdict="opens" if flip.opens else "closes",
            key_id=passage.key_id,
            route=passage.match.route.id if passage.match else None,
            http=passage.http,
            rpc=passage.message.method if passage.message else None,
            name=_get_name(passage.message),
            policy=passage.policy,
            candidate=flip.revision,
            rule=flip.rule,
            why=flip.why,
        )

    def record(self, passage: Passage, outcome: str, status: int) -> None:
        """It is over."""
        route = passage.match.route.id if passage.match else MANAGEMENT if passage.endpoint else "none"
        self._metrics.count_request(route, outcome)
        candidate = self._live.candidate
        if candidate is not None and outcome in UNSERVED and passage.target is not None:
            flip = candidate.find_new_route(passage.http, passage.target.path)
            if flip is not None:
                self._tell_flip(passage, flip)
        message = passage.message
        self._log.info(
            "request",
            request_id=passage.request_id,
            outcome=outcome,
            status=status,
            route=route,
            http=passage.http,
            rpc=message.method if message else None,
            name=passage.endpoint or _get_name(message),
            key_id=passage.key_id,
            policy=passage.policy,
            **passage.decision,
            **({"address": str(passage.address)} if outcome == Reason.ADDRESS_NOT_ALLOWED else {}),
            ms=round((self._clock.boot() - passage.started) * 1000, 1),
        )

    def record_unread(self, request_id: str, reason: Reason, status: int) -> None:
        """Something came in that never became a request."""
        self._metrics.count_request("none", reason)
        self._log.info("request", request_id=request_id, outcome=reason, status=status)


def _get_name(message: Message | None) -> str | None:
    """The tool, prompt or resource a message names."""
    if message is None:
        return None
    name = message.params.get("name") or message.params.get("uri")
    return name[:MAX_LOGGED_NAME] if isinstance(name, str) else None
