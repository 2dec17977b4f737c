"""Did anything happen that must never happen? One verdict over the merged journal of a fault.  [pure]

In go events (`journal`), the bound in force and the policy; out come violations, none if all is well. It judges by
causality alone: what was *sent* later than a commit *returned*, plus the bound, cannot owe its admission to the old
state, however slow the machine. Nothing here waits, reads a clock or asserts how long anything took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from proxy.policy import Allowed, Denied, Policy
from tests.faults.journal import (
    Answered,
    Chunk,
    Complained,
    Confirmed,
    Event,
    FaultEnded,
    Final,
    Gauge,
    Killed,
    Sent,
)
from tests.faults.story import Story, decide, tell

# Idle connections to the database and the upstream, that come and go with the load, and a probe's own.
FD_SLACK = 24
# Threads of the hash pool and of look-ups, started when they are first needed.
TASK_SLACK = 12
# What the allocator and warm caches keep after the first load: the factor is for large processes, the room for small.
RSS_FACTOR = 1.5
RSS_ROOM_BYTES = 48 * 1024 * 1024
UNAVAILABLE = frozenset((502, 503, 504))
# Lines of the log that mean a mistake of ours, whatever the world outside does.
MISTAKES = frozenset(("handler_failed", "check_failed", "room_failed", "judging_failed", "not_json"))
DEAD_WORDS = {"key_revoked": "revoked", "key_disabled": "disabled", "key_expired": "expired"}


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    at: float
    what: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.at:.3f}: {self.what}"


def check(events: Iterable[Event], bound: float, policy: Policy) -> list[Violation]:
    """Every violation of every invariant, in the order of time."""
    story = tell(events, bound, policy)
    checks: tuple[Callable[[Story], Iterable[Violation]], ...] = (
        check_bound,
        check_confirmed,
        check_nonces,
        check_at_most_once,
        check_decision_lines,
        check_refused_unsent,
        check_kept,
        check_baseline,
        check_replay,
        check_refusals_true,
        check_recovery,
        check_health,
    )
    found = [violation for one in checks for violation in one(story)]
    found += check_monotone(story, bound)
    return sorted(found, key=lambda violation: violation.at)


# I1: revocation has a bound.


def check_bound(story: Story) -> Iterator[Violation]:
    """Nothing sent later than commit + bound is admitted; nothing the upstream wrote later arrives."""
    for sent, answer in story.find_admissions():
        written = answer.emitted_at
        if not story.may(sent, sent.at, answer.at if written is None else written):
            yield Violation("I1", sent.at, f"{sent.proxy} admitted {sent.id} of {sent.key}, whose state forbade it")
        elif written is not None and not story.may(sent, written, answer.at):
            yield Violation("I1", answer.at, f"{sent.proxy} relayed an answer to {sent.key}, written too late for it")
    for sent, chunk in story.find_chunks():
        if chunk.emitted_at is not None and not story.may(sent, chunk.emitted_at, chunk.at):
            yield Violation("I1", chunk.at, f"{sent.proxy} relayed to {sent.key} what was written too late for it")


def check_confirmed(story: Story) -> Iterator[Violation]:
    """An instance that confirmed admits nothing sent later, and relays nothing written later: no bound at all."""
    confirmed = {(event.key, event.proxy): event.at for event in story.events if isinstance(event, Confirmed)}
    for sent, answer in story.find_admissions():
        if sent.at > confirmed.get((sent.key, sent.proxy), math.inf):
            yield Violation("I1", answer.at, f"{sent.proxy} had confirmed {sent.key}, and admitted {sent.id}")
    for sent, chunk in story.find_chunks():
        if (chunk.emitted_at or 0) > confirmed.get((sent.key, sent.proxy), math.inf):
            yield Violation("I1", chunk.at, f"{sent.proxy} had confirmed {sent.key}, and relayed more of {sent.id}")


# I2: revoked is for ever.


def check_monotone(story: Story, bound: float) -> Iterator[Violation]:
    """Once an instance said revoked it never admits again, nor does any other after the bound; the row stays so."""
    said: dict[str, float] = {}
    said_by: dict[tuple[str, str], float] = {}
    for answer in story.answered.values():
        if answer.reason == "key_revoked":
            sent = story.sent[answer.id]
            said[sent.key] = min(answer.at, said.get(sent.key, math.inf))
            said_by[sent.key, sent.proxy] = min(answer.at, said_by.get((sent.key, sent.proxy), math.inf))
    for sent, answer in story.find_admissions():
        latest = min(said.get(sent.key, math.inf) + bound, said_by.get((sent.key, sent.proxy), math.inf))
        if sent.at > latest:
            yield Violation("I2", answer.at, f"{sent.key} was revoked, and {sent.proxy} admitted it again")
    for event in story.events:
        if isinstance(event, Final) and event.key in said and event.state.status != "revoked":
            yield Violation("I2", event.at, f"{event.key} was revoked, and is {event.state.status} in the end")


# I3, I4: answers find their own requests, and requests are sent once.


def check_nonces(story: Story) -> Iterator[Violation]:
    for event in story.events:
        if isinstance(event, Answered | Chunk) and not event.nonces <= {event.id}:
            yield Violation("I3", event.at, f"{event.id} was answered with {sorted(event.nonces - {event.id})}")


def check_at_most_once(story: Story) -> Iterator[Violation]:
    for nonce, times in story.received.items():
        if times > 1:
            yield Violation("I4", story.events[-1].at, f"{nonce} reached the upstream {times} times")


# I5: the log tells it as it was.


def check_decision_lines(story: Story) -> Iterator[Violation]:
    """Every answer has one line. A killed process may have lost its last ones."""
    excuses = _find_excuses(story)
    for nonce, answer in story.answered.items():
        lines = len(story.decisions.get(answer.request_id or "", ()))
        if answer.request_id is None:
            if answer.admitted:
                yield Violation("I5", answer.at, f"{nonce} was admitted without a request id")
        elif lines > 1 or (lines == 0 and nonce not in excuses):
            yield Violation("I5", answer.at, f"{nonce} ({answer.status}) left {lines} decision lines")


def _find_excuses(story: Story) -> set[str]:
    """What was answered so shortly before a kill that its line may be lost: lines are written in order, so no request
    sent after it was over has one of the same process."""
    excused: set[str] = set()
    for killed in (event for event in story.events if isinstance(event, Killed)):
        of_process = [sent for sent in story.sent.values() if sent.proxy == killed.proxy and sent.at <= killed.at]
        written = [sent.at for sent in of_process if _has_line(story, sent)]
        last = max(written, default=-math.inf)
        excused |= {sent.id for sent in of_process if story.over.get(sent.id, math.inf) >= last}
    return excused


def _has_line(story: Story, sent: Sent) -> bool:
    answer = story.answered.get(sent.id)
    return answer is not None and bool(story.decisions.get(answer.request_id or ""))


def check_refused_unsent(story: Story) -> Iterator[Violation]:
    """What was not let in, its decision line naming no rule, never reached the upstream."""
    for nonce, answer in story.answered.items():
        refused = any(line.rule is None for line in story.decisions.get(answer.request_id or "", ()))
        if refused and story.received[nonce]:
            yield Violation("I5", answer.at, f"{nonce} was refused ({answer.reason}) and reached the upstream")


# I6: what was acknowledged is kept.


def check_kept(story: Story) -> Iterator[Violation]:
    finals = {event.key: event for event in story.events if isinstance(event, Final)}
    for key, phases in story.phases.items():
        lasting = [phase.state for phase in phases if phase.until == math.inf]
        final = finals.get(key)
        if final is None:
            yield Violation("I6", phases[-1].since, f"nobody looked what became of {key}")
        elif final.state not in lasting:
            yield Violation("I6", final.at, f"{key} is {final.state}, though acknowledged as {lasting}")


# I7: nothing is left behind.


def check_baseline(story: Story) -> Iterator[Violation]:
    """Each process against itself: a restarted one begins anew."""
    starts: dict[str, Gauge] = {}
    unended: dict[str, Gauge] = {}
    for event in story.events:
        if isinstance(event, Gauge) and event.moment == "start":
            starts[event.proxy] = unended[event.proxy] = event
        elif isinstance(event, Gauge):
            unended.pop(event.proxy, None)
            for what in _find_leaks(starts.get(event.proxy), event):
                yield Violation("I7", event.at, f"{event.proxy}: {what}")
    for proxy, gauge in unended.items():
        yield Violation("I7", gauge.at, f"{proxy} was not looked at when all was over")


def _find_leaks(start: Gauge | None, end: Gauge) -> Iterator[str]:
    if start is None:
        yield "was not looked at before it began"
        return
    if end.exchanges:
        yield f"{end.exchanges} exchanges are open"
    if end.fds > start.fds + FD_SLACK:
        yield f"{end.fds} descriptors, after {start.fds}"
    if end.tasks > start.tasks + TASK_SLACK:
        yield f"{end.tasks} tasks, after {start.tasks}"
    if end.rss_bytes > start.rss_bytes * RSS_FACTOR + RSS_ROOM_BYTES:
        yield f"{end.rss_bytes >> 20} MiB resident, after {start.rss_bytes >> 20}"


# I8: a decision is a function of the row, the policy and the request.


def check_replay(story: Story) -> Iterator[Violation]:
    """Some state of the key in the window leads to the same decision by the same rule."""
    for nonce, answer in story.answered.items():
        sent = story.sent[nonce]
        states = story.find_states(sent.key, sent.at, answer.at)
        for line in story.decisions.get(answer.request_id or "", ()):
            if line.key is not None and line.key != sent.key:
                yield Violation("I8", answer.at, f"{nonce} of {sent.key} was judged as one of {line.key}")
            replayed = [decide(story.policy, state, sent) for state in states]
            if line.rule is not None and not any(
                isinstance(one, Allowed) and one.rule == line.rule for one in replayed
            ):
                yield Violation("I8", answer.at, f"{nonce} was allowed by {line.rule}: the policy says {replayed}")
            if line.outcome == "message_denied" and not any(isinstance(one, Denied) for one in replayed):
                yield Violation("I8", answer.at, f"{nonce} was denied: the policy says {replayed}")


def check_refusals_true(story: Story) -> Iterator[Violation]:
    """Nobody is told that a key is dead which cannot have been."""
    for nonce, answer in story.answered.items():
        sent = story.sent[nonce]
        status = DEAD_WORDS.get(answer.reason or "")
        states = story.find_states(sent.key, sent.at, answer.at)
        if status is not None and all(state.status != status for state in states):
            yield Violation("I8", answer.at, f"{sent.proxy} said {answer.reason} of {sent.key}, which was {states}")


# And then it is well again.


def check_recovery(story: Story) -> Iterator[Violation]:
    """After a fault every good key is admitted again by whoever had admitted it, and is still there in the end."""
    there = {event.proxy for event in story.events if isinstance(event, Gauge) and event.moment == "end"}
    admissions = list(story.find_admissions())
    for healed in (event for event in story.events if isinstance(event, FaultEnded)):
        expected = {(sent.key, sent.proxy) for sent, _ in admissions if sent.key in healed.good and sent.proxy in there}
        recovered = {(sent.key, sent.proxy) for sent, _ in admissions if sent.at > healed.at}
        for key, proxy in sorted(expected - recovered):
            yield Violation("recovery", healed.at, f"{proxy} never admitted {key} again after {healed.name}")


def check_health(story: Story) -> Iterator[Violation]:
    """Whatever breaks outside is 502, 503 or 504; and no room of ours fell over."""
    for event in story.events:
        if isinstance(event, Answered) and event.status >= 500 and event.status not in UNAVAILABLE:
            yield Violation("health", event.at, f"{event.id} was answered {event.status}")
        elif isinstance(event, Complained) and event.event in MISTAKES:
            yield Violation("health", event.at, f"{event.proxy} said {event.line}")


def measure_window(events: Iterable[Event], policy: Policy) -> float:
    """Seconds after the commit of a key's death at which the last of it was still sent and admitted, or written and
    relayed; 0 when nothing was. What a run prints; no verdict."""
    story = tell(events, 0, policy)
    died = {
        key: phases[-1].acknowledged
        for key, phases in story.phases.items()
        if phases[-1].state.status != "active" and phases[-1].acknowledged < math.inf
    }
    late = [sent.at - died[sent.key] for sent, _ in story.find_admissions() if sent.key in died]
    late += [(c.emitted_at or 0) - died[sent.key] for sent, c in story.find_chunks() if sent.key in died]
    return max(0.0, max(late, default=0.0))
