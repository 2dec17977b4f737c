"""What a page says of a key: its state in a word, what deserves a look, and sums for charts.  [pure]

In go keys as the management API shows them and the time, out come values that templates write down. Nothing here is
escaped: templates do that, to everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from proxy.keys.rights import ACTION_SCOPES, Action, Caller
from proxy.management.shown import GrantableScope, Key
from proxy.policy.scopes import EVERYTHING, covers

Tone = Literal["good", "warn", "bad", "off", "ended"]
SOON: Final = timedelta(days=14)
IDLE: Final = timedelta(days=90)
UNUSED: Final = timedelta(days=7)  # a key that is not used by then was made in vain, or is forgotten
_UNITS: Final = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))
_STATES: Final[Mapping[str, tuple[str, Tone]]] = {
    "active": ("Active", "good"),
    "disabled": ("Disabled", "off"),
    "revoked": ("Revoked", "ended"),
    "expired": ("Expired", "ended"),
    "owner_disabled": ("Account disabled", "off"),
    "constraints_unreadable": ("Constraints unreadable", "bad"),
}


@dataclass(frozen=True, slots=True)
class State:
    """What a key is now, in words; `tone` chooses colour and icon beside them."""

    word: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class ScopeGroup:
    """Scopes of one resource, in the catalogue's order."""

    resource: str
    scopes: tuple[GrantableScope, ...]


def judge_state(key: Key, now: datetime) -> State:
    """Expiring is active, too, and worth another word."""
    if key.status == "active" and key.expires_at is not None and key.expires_at - now < SOON:
        return State("Expires soon", "warn")
    return State(*_STATES[key.status])


def list_hints(key: Key, now: datetime) -> list[str]:
    """What its owner should look at, each with what to do. Keys that have ended need no care."""
    if key.status not in ("active", "disabled"):
        return []
    hints = []
    if EVERYTHING in key.scopes:
        hints.append("Can do everything its owner can: narrow it if it needs less")
    if key.expires_at is None:
        hints.append("Never expires: give it an end, or rotate it regularly")
    elif key.expires_at - now < SOON:
        hints.append(f"Expires in {tell_span(key.expires_at - now)}: prolong it or replace it")
    if key.last_used_at is None and now - key.created_at > UNUSED:
        hints.append("Never used: revoke it if nobody needs it")
    elif key.last_used_at is not None and now - key.last_used_at > IDLE:
        hints.append(f"Unused for {tell_span(now - key.last_used_at)}: revoke it if nobody needs it")
    return hints


def tell_span(span: timedelta) -> str:
    """How long, in the largest unit that fits."""
    seconds = int(abs(span.total_seconds()))
    for name, size in _UNITS:
        count = seconds // size
        if count:
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a minute"


def tell_moment(moment: datetime) -> str:
    """For whoever reads without scripts; those write the reader's own time instead."""
    return f"{moment.day} {moment:%b %Y, %H:%M} UTC"


def group_scopes(scopes: Iterable[GrantableScope]) -> list[ScopeGroup]:
    """By the resource before the colon."""
    groups: dict[str, list[GrantableScope]] = {}
    for scope in scopes:
        groups.setdefault(scope.scope.partition(":")[0], []).append(scope)
    return [ScopeGroup(resource, tuple(found)) for resource, found in groups.items()]


def list_resources(scopes: Sequence[str]) -> str:
    """What scopes concern, in short."""
    if EVERYTHING in scopes:
        return "Whatever your account may do, now and later"
    names = list(dict.fromkeys(scope.partition(":")[0] for scope in scopes))
    return f"{len(scopes)} rights over {', '.join(f'{name}s' for name in names)}"


def find_actions(caller: Caller, key: Key) -> frozenset[Action]:
    """What the page offers to do with a key. Whether it is really allowed is judged when it is done."""
    if key.id == caller.key_id or key.status in ("revoked", "expired"):
        return frozenset()
    held = {action for action, scope in ACTION_SCOPES.items() if covers(caller.grants, scope)}
    if key.status == "disabled":
        held.discard("disable")
    else:
        held.discard("enable")
    if key.owner != caller.owner.subject or key.issuer != caller.owner.issuer:
        held.discard("rotate")  # its secret is its owner's alone
    return frozenset(held)
