"""Recorded decisions, made again under another policy.  [pure]

In go the lines of a decision log and a policy, out comes what would have been decided otherwise, for whom, and how
often; and of what cannot be told, why. A decision that would have rested on what nobody wrote down is never guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson

from proxy.identity import Claims, Owner, OwnerId
from proxy.policy.compiled import Policy
from proxy.policy.questions import Answer, Question, ask
from proxy.policy.recorded_fields import QUERY, read_params
from proxy.policy.rules import Allowed, Denied

Verdict = Literal["same", "other_rule", "opens", "closes"]
NO_RIGHTS: Final = "the key's rights are not in this log"
NO_PATH: Final = "the path was too long to be recorded"
NO_FIELDS: Final = "a member was refused for its spelling, which is not recorded"
BAD_FIELDS: Final = "the recorded fields contradict each other"


@dataclass(frozen=True, slots=True)
class Record:
    """A decision. Equal ones are judged once. `fields`: JSON; None: they do not tell."""

    key_id: str
    rights: str
    http: str
    route: str
    path: str | None
    rpc: str | None
    name: str | None
    fields: str | None
    allowed: bool
    rule: str | None

    @property
    def subject(self) -> str:
        """What was asked for, in words; of requests by HTTP the route, since paths are many."""
        words = (self.http, self.route) if self.rpc is None else (self.rpc, self.name)
        return " ".join(word for word in words if word)


@dataclass(slots=True)
class Seen:
    """How often, and the times of the first and the last as the log writes them."""

    count: int = 0
    first: str = ""
    last: str = ""

    def add(self, count: int, first: str, last: str) -> None:
        self.first = min(self.first or first, first)
        self.last = max(self.last, last)
        self.count += count


@dataclass(frozen=True, slots=True)
class Flip:
    """Decisions that would come out otherwise: alike in key, subject, and the rules that decided and would decide."""

    verdict: Verdict
    key_id: str
    subject: str
    rule_before: str | None
    rule_after: str | None
    why: str | None
    seen: Seen


@dataclass(frozen=True, slots=True)
class Replay:
    """What a policy makes of a log. `untold`: how many decisions cannot be told, by reason."""

    verdicts: Counter[Verdict]
    untold: Counter[str]
    flips: tuple[Flip, ...]


@dataclass(slots=True)
class DecisionLog:
    """The lines of a log, taken in one by one. `since`: UTC as the log writes it; older decisions are left out."""

    since: str = ""
    lines: int = 0
    foreign: int = 0  # no line of a decision, or of rights
    undecided: int = 0  # requests that never came to a decision
    older: int = 0
    decisions: dict[Record, Seen] = field(default_factory=dict)
    rights: dict[str, tuple[Claims, Owner]] = field(default_factory=dict)

    def read(self, line: bytes | str) -> None:
        """Whatever it is: what cannot be read is foreign."""
        self.lines += 1
        try:
            members = orjson.loads(line)  # strict: nothing that could not be printed again
            event = members["event"]
            if event == "rights":
                self.rights[members["rights"]] = _read_rights(members)
            elif event == "request" and "decision" in members:
                self._take(_read_record(members), members["timestamp"])
            elif event == "request":
                self.undecided += 1
            else:
                self.foreign += 1
        except (ValueError, KeyError, TypeError, RecursionError):
            self.foreign += 1

    def _take(self, record: Record, timestamp: str) -> None:
        if timestamp < self.since:
            self.older += 1
            return
        self.decisions.setdefault(record, Seen()).add(1, timestamp, timestamp)

    def replay(self, policy: Policy) -> Replay:
        """Decide everything again."""
        find_grants = lru_cache(None)(policy.effective_scopes)
        verdicts, untold = Counter[Verdict](), Counter[str]()
        flips: dict[tuple[object, ...], Flip] = {}
        for record, seen in self.decisions.items():
            rights = self.rights.get(record.rights)
            if rights is None:
                untold[NO_RIGHTS] += seen.count
                continue
            claims, owner = rights
            answer = _judge(policy, record, find_grants(claims.scopes, claims.ancestors, owner.tier), owner)
            if isinstance(answer, str):
                untold[answer] += seen.count
                continue
            verdict = _compare(record, answer)
            verdicts[verdict] += seen.count
            if verdict in ("opens", "closes"):
                flip = _form_flip(record, verdict, answer)
                known = flips.setdefault((verdict, flip.key_id, flip.subject, flip.rule_before, flip.rule_after), flip)
                known.seen.add(seen.count, seen.first, seen.last)
        return Replay(verdicts, untold, tuple(sorted(flips.values(), key=lambda flip: -flip.seen.count)))


def _judge(policy: Policy, record: Record, grants: frozenset[str], owner: Owner) -> Answer | str:
    """What the policy says, or why it cannot be told."""
    if record.path is None:
        return NO_PATH
    if record.fields is None:
        return NO_FIELDS
    fields: dict[str, Any] = json.loads(record.fields)
    if record.rpc is None:
        query = [(name.removeprefix(QUERY), value) for name, value in fields.items() if value is not None]
        text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
        answer = ask(policy, Question(record.http, f"{record.path}?{text}" if text else record.path), grants, owner)
        unknown = list(_list_unread(answer, fields))
    else:
        try:
            params, unknown = read_params(fields)
        except (ValueError, RecursionError):
            return BAD_FIELDS
        answer = ask(policy, Question(record.http, record.path, record.rpc, params), grants, owner)
    return f"{unknown[0]} was not recorded" if unknown else answer


def _list_unread(answer: Answer, fields: Mapping[str, object]) -> Iterator[str]:
    if answer.match is not None:
        names = sorted(answer.match.route.query_names)
        yield from (f"{QUERY}{name}" for name in names if f"{QUERY}{name}" not in fields)


def _compare(record: Record, answer: Answer) -> Verdict:
    allowed = isinstance(answer.decision, Allowed)
    if allowed != record.allowed:
        return "opens" if allowed else "closes"
    return "same" if answer.decision.rule == record.rule else "other_rule"


def _form_flip(record: Record, verdict: Verdict, answer: Answer) -> Flip:
    decision = answer.decision
    why = decision.why if isinstance(decision, Denied) else None
    return Flip(verdict, record.key_id, record.subject, record.rule, decision.rule, why, Seen())


def _read_record(members: Mapping[str, Any]) -> Record:
    """Raises KeyError, TypeError or ValueError unless the line is one of ours."""
    fields = members["fields"]
    known = fields is None or _are_fields(fields, of_query=members.get("rpc") is None)
    if not known or members["decision"] not in ("allowed", "denied"):
        raise ValueError("no decision line")
    texts = [members[name] for name in ("key_id", "rights", "http", "route", "timestamp")]
    options = [members.get(name) for name in ("path", "rpc", "name", "rule")]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(one, str | None) for one in options):
        raise TypeError("no decision line")
    return Record(
        key_id=members["key_id"],
        rights=members["rights"],
        http=members["http"],
        route=members["route"],
        path=members.get("path"),
        rpc=members.get("rpc"),
        name=members.get("name"),
        fields=None if fields is None else json.dumps(fields, sort_keys=True),
        allowed=members["decision"] == "allowed",
        rule=members.get("rule"),
    )


def _are_fields(fields: object, *, of_query: bool) -> bool:
    """Whether they are as `recorded_fields` writes them; of a query there are texts only."""
    kinds = (str, type(None)) if of_query else (str, type(None), int)
    return isinstance(fields, dict) and all(
        isinstance(value, kinds) or (value == {} and not of_query) for value in fields.values()
    )


def _read_rights(members: Mapping[str, Any]) -> tuple[Claims, Owner]:
    ancestors = tuple(tuple(map(str, scopes)) for scopes in members["ancestors"])
    claims = Claims(tuple(map(str, members["scopes"])), ancestors)
    tenant_id, subject, tier = (str(members[name]) for name in ("tenant_id", "subject", "tier"))
    return claims, Owner(OwnerId(""), tenant_id, "", subject, tier)
