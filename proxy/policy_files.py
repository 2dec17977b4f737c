"""The policy's files on disk, and what becomes of an edit.  [io]

In go the passing of time and SIGHUP, out come policies that were read, checked and tested: the one in force, replaced
whole, and the candidate beside it. A file that cannot be used changes nothing but a log line and a metric. Reading and
testing take a thread of their own; the event loop only sees the exchange.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from proxy.errors import ConfigError
from proxy.live_policy import Candidate, LivePolicy
from proxy.logs import get_logger
from proxy.metrics import Metrics
from proxy.policy import Policy
from proxy.policy.cases import find_cases_path, load_tested_policy

log = get_logger("policy")

# Four calls of stat: also what is behind a symbolic link, as Kubernetes swaps a ConfigMap, and on any file system.
LOOK_SECONDS = 1.0
Signature = tuple[tuple[int, int, int] | None, ...]


def find_candidate_path(path: Path) -> Path:
    """Where the candidate of a policy is: `policy.candidate.yaml` for `policy.yaml`."""
    return path.with_name(f"{path.stem}.candidate{path.suffix}")


class PolicyFile:
    """One file with its tests: which version of it was looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._looked_at: Signature | None = None

    def has_changed(self) -> bool:
        return self._sign() != self._looked_at

    def load(self) -> Policy:
        """Read, check, test. Raises ConfigError."""
        self._looked_at = self._sign()  # before reading: a change meanwhile is seen next time
        return load_tested_policy(self.path)

    def exists(self) -> bool:
        return self.path.exists()

    def forget(self) -> None:
        self._looked_at = self._sign()

    def _sign(self) -> Signature:
        return tuple(_sign(path) for path in (self.path, find_cases_path(self.path)))


def _sign(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    return None


class PolicyFiles:
    """The policy's file and its candidate's."""

    def __init__(self, path: Path) -> None:
        self._enforced = PolicyFile(path)
        self._candidate = PolicyFile(find_candidate_path(path))
        self._woken = asyncio.Event()
        self._fault: str | None = None

    def load(self) -> Policy:
        """The policy to begin with. Raises ConfigError."""
        return self._enforced.load()

    @property
    def fault(self) -> str | None:
        """Why the file on disk is not the policy in force."""
        return self._fault

    def wake(self) -> None:
        """Look now, whatever the files look like."""
        self._woken.set()

    async def follow(self, live: LivePolicy, rejudge: Callable[[], None], metrics: Metrics) -> None:
        """Adopt every good edit, until cancelled. `rejudge` has everything open judged again."""
        while True:
            told = self._woken.is_set()
            self._woken.clear()
            if told or self._enforced.has_changed():
                await self._adopt(live, rejudge, metrics, told=told)
            if told or self._candidate.has_changed():
                await self._try_out(live, metrics)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()

    async def _adopt(self, live: LivePolicy, rejudge: Callable[[], None], metrics: Metrics, *, told: bool) -> None:
        policy = await _load(self._enforced, "policy_refused", in_force=live.enforced.revision)
        metrics.show_policy_fault("enforced", faulty=policy is None)
        self._fault = "the policy file cannot be used; see the log" if policy is None else None
        if policy is None:
            return
        if policy.revision == live.enforced.revision:
            if told:  # whoever asked wants an answer
                log.info("policy_unchanged", file=str(self._enforced.path), policy=policy.revision)
            return
        replaced = live.enforced.revision
        live.enforce(policy)
        rejudge()  # in the same step: nothing is decided between the two
        metrics.show_policy(policy.revision)
        log.warning("policy_enforced", file=str(self._enforced.path), policy=policy.revision, replaced=replaced)

    async def _try_out(self, live: LivePolicy, metrics: Metrics) -> None:
        if not self._candidate.exists():
            self._candidate.forget()
            if live.candidate is not None:
                log.info("candidate_removed", candidate=live.candidate.policy.revision)
            live.candidate = None
            metrics.show_candidate(None)
            metrics.show_policy_fault("candidate", faulty=False)
            return
        known = live.candidate.policy.revision if live.candidate is not None else None
        policy = await _load(self._candidate, "candidate_refused", candidate=known)
        metrics.show_policy_fault("candidate", faulty=policy is None)
        if policy is not None and policy.revision != known:
            live.candidate = Candidate(policy)
            metrics.show_candidate(policy.revision)
            log.info("candidate_on_trial", file=str(self._candidate.path), candidate=policy.revision)


async def _load(file: PolicyFile, refusal: str, **kept: object) -> Policy | None:
    """None, and a loud line, when the file must not be used: what was there before stays."""
    try:
        return await asyncio.to_thread(file.load)
    except ConfigError as error:
        log.error(refusal, file=str(file.path), faults=[str(fault) for fault in error.faults], **kept)
    except Exception:  # whatever was not foreseen: an edit must not take down what works
        log.exception(refusal, file=str(file.path), **kept)
    return None
