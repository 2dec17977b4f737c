"""Why a key may or may not do something: the policy's decision, and where the key lost the right to it.  [pure]

In go the explanation of a decision and the key's row, out comes what there is to say of both: the same words for the
command line and for the management API. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from proxy.keys.record import KeyRecord
from proxy.policy import Denied, Policy
from proxy.policy.explanations import Explanation, explain
from proxy.policy.questions import Question
from proxy.policy.scopes import covers


def explain_key(policy: Policy, question: Question, record: KeyRecord, now: float) -> dict[str, Any]:
    """All there is to say of a key's question. `now`: seconds since the epoch, by the database's clock."""
    grants = policy.effective_scopes(record.scopes, (one.scopes for one in record.ancestors), record.owner.tier)
    explanation = explain(policy, question, grants, record.owner)
    fault = find_key_fault(record, now)
    return form_explanation(explanation, fault, list_losses(explanation, record, fault))


def form_explanation(explanation: Explanation, fault: str | None, losses: Sequence[str]) -> dict[str, Any]:
    """As one JSON object. `fault`: that the key may not be used, whatever the policy says."""
    refused = {} if fault is None else {"allowed": False, "why": fault}
    return {**explanation.form(), **refused, "lost": list(losses)}


def find_key_fault(record: KeyRecord, now: float) -> str | None:
    """That the key may not be used, with the ancestor that is to blame if the key itself is not."""
    reason = record.find_fault(now)
    if reason is None:
        return None
    fault = f"the key may not be used at all: {reason}"
    if replace(record, ancestors=()).find_fault(now) is not None:
        return fault
    blamed = next(one.id for one in record.ancestors if replace(record, ancestors=(one,)).find_fault(now) is not None)
    return f"{fault}, through {blamed}, which it was made from"


def list_losses(explanation: Explanation, record: KeyRecord | None, fault: str | None) -> list[str]:
    """Where a right that the key lacks is lost. What the tier takes is in the explanation already."""
    losses = [] if fault is None else [fault]
    if record is not None and isinstance(explanation.decision, Denied):
        losses += _find_losses(explanation.decision, record)
    return losses


def _find_losses(decision: Denied, record: KeyRecord) -> Iterator[str]:
    for scope in decision.missing:
        if not covers(frozenset(record.scopes), scope):
            yield f"{scope} is not among the key's own scopes"
        for ancestor in record.ancestors:
            if not covers(frozenset(ancestor.scopes), scope):
                yield f"{scope} is not among those of {ancestor.id}, which it was made from"
