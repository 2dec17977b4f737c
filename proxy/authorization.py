"""May they? The one policy point, below every version, transport and method.  [pure]

In go a Principal, a route and (on MCP routes) the message, out comes a `Permit`, or a DeniedError that says what would
have sufficed. Only this room makes Permits, and `forwarding` takes nothing else. Whatever goes wrong while deciding
denies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from proxy.errors import DeniedError, Reason
from proxy.identity import Principal
from proxy.messages import Message
from proxy.policy import Allowed, Denied, Policy, RouteMatch
from proxy.policy.explanations import form_denial

_NO_MEMBERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Permit:
    """This principal may send this message (None: the bare HTTP method) by this route."""

    principal: Principal
    match: RouteMatch
    method: str
    message: Message | None
    rule: str
    scopes: tuple[str, ...]


def authorize(
    policy: Policy,
    principal: Principal,
    match: RouteMatch,
    method: str,
    message: Message | None,
    query: Mapping[str, str] = _NO_MEMBERS,
) -> Permit:
    """Decide. Raises DeniedError."""
    if message is None:
        decision = policy.decide_http(match, method, query, principal.grants, principal.owner)
    elif message.kind == "response":
        # An answer to the server's own request opens nothing: the session it is posted to must be the key's own.
        decision = Allowed(f"{match.route.id}/response", ())
    else:
        assert message.method is not None
        decision = policy.decide_message(match, message.method, message.params, principal.grants, principal.owner)
    if isinstance(decision, Denied):
        raise _deny(decision, principal, message)
    return Permit(principal, match, method, message, decision.rule, decision.scopes)


def admit(policy: Policy, match: RouteMatch, method: str, query: Mapping[str, str]) -> None:
    """Let a request without a key pass on a route that is anyone's. It gets no Permit. Raises DeniedError."""
    decision = policy.decide_public(match, method, query)
    if isinstance(decision, Denied):
        raise DeniedError(Reason.ROUTE_DENIED, decision.why, data={"rule": decision.rule})


def _deny(denied: Denied, principal: Principal, message: Message | None) -> DeniedError:
    reason = Reason.ROUTE_DENIED if message is None else Reason.MESSAGE_DENIED
    if denied.unknown_method:
        reason = Reason.METHOD_UNKNOWN
    explanation = form_denial(denied, principal.grants)
    return DeniedError(reason, denied.why, rpc_id=message.id if message else None, data=explanation)
