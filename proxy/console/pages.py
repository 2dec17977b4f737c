"""What a page says of a key: its state in a word, what deserves a look, and sums for charts.  [pure]

In go keys as the management API shows them and the time, out come values that templates write down. Nothing here is
escaped: templates do that, to everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from proxy.keys.rights import ACTION_SCOPES, Action, Caller
from proxy.management.shown import DayUse, Event, GrantableScope, Key, Usage
from proxy.policy.scopes import EVERYTHING, covers, show, split_scope

Tone = Literal["good", "warn", "bad", "off", "ended"]
# A moment as the audit writes it.
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", re.ASCII)
RUN_WORKFLOW: Final = "workflow:run"
MAX_LINES: Final = 12  # of one event
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
_DEEDS: Final[Mapping[str, str]] = {
    "mint": "Created",
    "update": "Changed",
    "disable": "Disabled",
    "enable": "Enabled",
    "rotate": "Rotated",
    "revoke": "Revoked",
    "key.new_address": "First use from a new network",
    "request.denied": "Request denied",
}


@dataclass(frozen=True, slots=True)
class State:
    """What a key is now, in words; `tone` chooses colour and icon beside them."""

    word: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of a chart, heights in hundredths."""

    title: str
    allowed: int
    denied: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Days side by side. `highest`: requests of the busiest; 0: there is nothing to draw."""

    bars: tuple[Bar, ...]
    allowed: int
    denied: int
    highest: int


@dataclass(frozen=True, slots=True)
class Meter:
    """Of a grace: when it began, and the seconds that it lasts and that are left of it."""

    begun: datetime
    whole: int
    left: int


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
        hints.append("Can do everything its owner can: if it needs less, make a narrower key")
    if key.expires_at is None:
        hints.append("Never expires: give it an end, or rotate it regularly")
    elif key.expires_at - now < SOON:
        hints.append(f"Expires in {tell_span(key.expires_at - now)}: extend it or replace it")
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


def tell_number(number: float) -> str:
    """Without the point that a whole one has in no form."""
    return str(int(number)) if number == int(number) else str(number)


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


@dataclass(frozen=True, slots=True)
class Held:
    """What a key holds of a scope: these selectors of it; none: all of it."""

    selectors: tuple[str, ...] = ()


def find_held(scopes: Sequence[str], head: str) -> Held | None:
    """None: nothing of it."""
    if EVERYTHING in scopes or head in scopes:
        return Held()
    selectors = tuple(selector for start, selector in map(split_scope, scopes) if start == head and selector)
    return Held(selectors) if selectors else None


def find_one(scopes: Sequence[str]) -> str | None:
    """The workflow, of a key that may run one and nothing else."""
    held = find_held(scopes, RUN_WORKFLOW)
    return held.selectors[0] if held is not None and len(scopes) == 1 and held.selectors else None


def find_one_workflow(scopes: Iterable[GrantableScope]) -> GrantableScope | None:
    """The right to run workflows, if it can be given for a single one; None where the policy or the caller has none."""
    found = next((scope for scope in scopes if scope.scope == RUN_WORKFLOW), None)
    return found if found is not None and found.selector and (found.may or found.selectors) else None


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


def form_chart(days: Sequence[DayUse]) -> Chart:
    """A request that happened can be seen, however many there were on other days."""
    highest = max((day.allowed + day.denied for day in days), default=0)

    def scale(count: int) -> int:
        return max(2, round(94 * count / highest)) if count else 0

    bars = (
        Bar(f"{day.day:%d %b}: {day.allowed} allowed, {day.denied} denied", scale(day.allowed), scale(day.denied))
        for day in days
    )
    return Chart(tuple(bars), sum(day.allowed for day in days), sum(day.denied for day in days), highest)


def find_unused(key: Key, usage: Usage) -> tuple[str, ...]:
    """The key's rights that nothing rested on. None of a key that has not been used: that is another hint."""
    used = frozenset(scope for use in usage.uses if use.allowed for scope in use.scopes)
    if not used or EVERYTHING in key.scopes:
        return ()
    return tuple(scope for scope in key.scopes if not any(covers(frozenset({scope}), one) for one in used))


def measure_grace(key: Key, events: Iterable[Event], now: datetime) -> Meter | None:
    """Of the last rotation, where it is among these events."""
    begun = next((event.at for event in events if event.action == "rotate"), None)
    if key.old_secret_until is None or begun is None or not begun < key.old_secret_until:
        return None
    whole, left = key.old_secret_until - begun, key.old_secret_until - now
    return Meter(begun, int(whole.total_seconds()), max(0, int(left.total_seconds())))


def name_deed(event: Event) -> str:
    """What was done, in words where there are some."""
    return _DEEDS.get(event.action) or show(event.action, 40)


def tell_actor(actor: str) -> str:
    """Who did it. An actor is `kind:name`; of somebody signed in the name is `issuer|subject`, and only subjects
    have more of those."""
    kind, _, name = actor.partition(":")
    if kind == "jwt":
        return show(name.partition("|")[2], 80)
    if kind == "key":
        return f"key aegis_{show(name, 20)}"
    return "the proxy" if kind == "proxy" else show(actor, 80)


def list_changes(event: Event) -> list[str]:
    """What differs, in lines, or what it began with; foreign text in them is short and printable."""
    before, after = event.before or {}, event.after or {}
    lines = []
    for name in sorted({*before, *after}):
        words = name.replace("_", " ")
        if name in before:
            lines.append(f"{words}: {_tell(before[name])} → {_tell(after.get(name))}")
        elif after[name]:
            lines.append(f"{words}: {_tell(after[name])}")
    return lines[:MAX_LINES]


def _tell(value: object) -> str:
    if isinstance(value, list):
        return show(", ".join(map(str, value))) or "none"
    if isinstance(value, dict):
        return show("; ".join(f"{name.replace('_', ' ')} {_tell(one)}" for name, one in value.items())) or "none"
    if value is None:
        return "none"
    moment = _find_moment(str(value))
    return show(str(value)) if moment is None else tell_moment(moment)


def _find_moment(text: str) -> datetime | None:
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # a name may look like one
        return None
