"""argon2 in threads: right and wrong secrets, hostile strings, a full pool and callers who leave."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import argon2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.errors import Reason, UnavailableError
from proxy.keys.hashing import ForeignHashError, Hasher, MismatchError
from tests.staging import GUARD_SECONDS

SALT, HASH = "c2FsdHNhbHRzYWx0c2FsdA", "aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
HOSTILE = {
    "a gibibyte": f"$argon2id$v=19$m=1048576,t=1,p=1${SALT}${HASH}",
    "one KiB above the bound": f"$argon2id$v=19$m=19457,t=1,p=1${SALT}${HASH}",
    "many rounds": f"$argon2id$v=19$m=1024,t=3,p=1${SALT}${HASH}",
    "no rounds": f"$argon2id$v=19$m=1024,t=0,p=1${SALT}${HASH}",
    "no memory": f"$argon2id$v=19$m=0,t=1,p=1${SALT}${HASH}",
    "negative memory": f"$argon2id$v=19$m=-1024,t=1,p=1${SALT}${HASH}",
    "four threads": f"$argon2id$v=19$m=1024,t=1,p=4${SALT}${HASH}",
    "argon2i": f"$argon2i$v=19$m=1024,t=1,p=1${SALT}${HASH}",
    "argon2d": f"$argon2d$v=19$m=1024,t=1,p=1${SALT}${HASH}",
    "a huge salt": f"$argon2id$v=19$m=1024,t=1,p=1${'A' * 1_000_000}${HASH}",
    "a huge hash": f"$argon2id$v=19$m=1024,t=1,p=1${SALT}${'A' * 1_000_000}",
    "bcrypt": "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
    "a digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "nothing": "",
    "other letters": f"$argon2id$v=19$m=1024,t=1,p=1${SALT}$ä",
    "half a string": "$argon2id$v=19$m=1024",
    "words for numbers": f"$argon2id$v=19$m=much,t=1,p=1${SALT}${HASH}",
}


class HeldSecret(str):
    """A secret whose hashing stands still, in the worker's thread, until it is let go."""

    __slots__ = ("begun", "let_go")

    def __init__(self, _text: str) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def encode(self, *arguments: Any, **options: Any) -> bytes:
        self.begun.set()
        assert self.let_go.wait(GUARD_SECONDS)
        return str(self).encode(*arguments, **options)

    def __str__(self) -> str:
        return "".join(self)


class Observer:
    """Told when a permit has come back."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.told = asyncio.Event()

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.told.set()

    async def wait_told(self) -> None:
        async with asyncio.timeout(GUARD_SECONDS):
            await self.told.wait()
        self.told.clear()


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def small(observer: Observer) -> Iterator[Hasher]:
    """One thread, and one place in the queue."""
    hasher = Hasher(
        memory_cost_kib=1024, time_cost=1, threads=1, queue_size=1, timeout_seconds=10, observe_seconds=observer
    )
    yield hasher
    hasher.close()


@pytest.fixture
def held() -> Iterator[HeldSecret]:
    secret = HeldSecret("held")
    yield secret
    secret.let_go.set()


async def begin_hashing(hasher: Hasher, secret: HeldSecret) -> asyncio.Task[str]:
    """A caller whose hash is being computed by the only thread."""
    task = asyncio.create_task(hasher.hash(secret))
    assert await asyncio.to_thread(secret.begun.wait, GUARD_SECONDS)
    return task


def start_waiting(hasher: Hasher, secret: str) -> asyncio.Task[str]:
    return asyncio.create_task(hasher.hash(secret))


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_right_secret_fits_and_every_other_does_not(hasher: Hasher) -> None:
    stored = await hasher.hash("secret")
    await hasher.verify(stored, "secret")
    for wrong in ("Secret", "secre", "secrets", "", "secret\0"):
        with pytest.raises(MismatchError):
            await hasher.verify(stored, wrong)


async def test_the_stored_string_says_how_it_was_made_and_is_salted(hasher: Hasher) -> None:
    one, other = await hasher.hash("secret"), await hasher.hash("secret")
    assert one.startswith("$argon2id$v=19$m=1024,t=1,p=1$")
    assert one != other
    assert "secret" not in one


@pytest.mark.parametrize(("memory_cost_kib", "time_cost"), [(8, 1), (512, 1), (8192, 1), (19_456, 2)])
async def test_strings_no_dearer_than_owasps_floor_are_verified(
    hasher: Hasher, memory_cost_kib: int, time_cost: int
) -> None:
    other = argon2.PasswordHasher(memory_cost=memory_cost_kib, time_cost=time_cost, parallelism=1)
    await hasher.verify(other.hash("secret"), "secret")


async def test_strings_made_with_raised_settings_are_verified_under_those_settings() -> None:
    stored = argon2.PasswordHasher(memory_cost=20_480, time_cost=3, parallelism=1).hash("secret")
    raised = Hasher(memory_cost_kib=20_480, time_cost=3, threads=1, queue_size=1, timeout_seconds=10)
    await raised.verify(stored, "secret")
    raised.close()


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_string_is_refused_before_any_work(small: Hasher, held: HeldSecret, name: str) -> None:
    """The pool is full: whoever asked it for anything would be told so."""
    running, waiting = await begin_hashing(small, held), start_waiting(small, "next")
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await small.hash("one too many")
    with pytest.raises(ForeignHashError):
        await small.verify(HOSTILE[name], "secret")
    held.let_go.set()
    await asyncio.gather(running, waiting)


@given(st.text(max_size=200) | st.builds("$argon2id$v=19$m={},t={},p={}${}${}".format, *[st.text(max_size=20)] * 5))
def test_no_text_does_worse_than_being_foreign(text: str) -> None:
    hasher = Hasher(memory_cost_kib=1024, time_cost=1, threads=1, queue_size=1, timeout_seconds=10)
    try:
        hasher.check_parameters(text)
    except ForeignHashError:
        pass
    else:
        assert text.startswith(("$argon2id$", "$argon2i$", "$argon2d$"))
    hasher.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_damaged_string_is_a_mismatch_or_foreign_and_nothing_else(hasher: Hasher, data: st.DataObject) -> None:
    stored = f"$argon2id$v=19$m=1024,t=1,p=1${SALT}${HASH}"
    place = data.draw(st.integers(0, len(stored) - 1))
    damaged = stored[:place] + data.draw(st.characters()) + stored[place + 1 :]
    with pytest.raises((MismatchError, ForeignHashError)):
        await hasher.verify(damaged, "secret")


async def test_a_full_queue_is_busy_and_never_wrong(small: Hasher, held: HeldSecret) -> None:
    stored = await small.hash("secret")
    running, waiting = await begin_hashing(small, held), start_waiting(small, "next")
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError) as caught:
        await small.verify(stored, "secret")
    assert caught.value.reason is Reason.HASHING_BUSY
    assert caught.value.retry_after_seconds == 1
    held.let_go.set()
    assert (await running).startswith("$argon2id$")
    assert (await waiting).startswith("$argon2id$")
    await small.verify(stored, "secret")


async def test_a_caller_who_leaves_does_not_free_the_permit_while_the_thread_works(
    small: Hasher, held: HeldSecret, observer: Observer
) -> None:
    running, waiting = await begin_hashing(small, held), start_waiting(small, "next")
    await asyncio.sleep(0)
    await cancel(running)
    await cancel(waiting)
    assert small.pending == 2
    with pytest.raises(UnavailableError):
        await small.hash("one too many")
    held.let_go.set()
    while small.pending:
        await observer.wait_told()
    await small.hash("room again")


async def test_a_thousand_callers_who_leave_start_no_more_work_than_the_pool_holds(
    small: Hasher, held: HeldSecret, observer: Observer
) -> None:
    await cancel(await begin_hashing(small, held))
    refused = 0
    for _ in range(1_000):
        task = start_waiting(small, "gone")
        await asyncio.sleep(0)
        if task.done():
            assert isinstance(task.exception(), UnavailableError)
            refused += 1
        else:
            await cancel(task)
    assert refused == 999
    held.let_go.set()
    while small.pending:
        await observer.wait_told()
    assert len(observer.seconds) == 2


async def test_a_hash_that_takes_too_long_is_busy_and_keeps_its_permit(held: HeldSecret, observer: Observer) -> None:
    hasher = Hasher(
        memory_cost_kib=1024, time_cost=1, threads=1, queue_size=0, timeout_seconds=0.05, observe_seconds=observer
    )
    with pytest.raises(UnavailableError, match="too long") as caught:
        await hasher.hash(held)
    assert caught.value.reason is Reason.HASHING_BUSY
    assert hasher.pending == 1
    held.let_go.set()
    await observer.wait_told()
    assert hasher.pending == 0
    hasher.close()


async def test_a_mismatch_nobody_waits_for_is_dropped_in_silence(
    small: Hasher, held: HeldSecret, observer: Observer
) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    stored = await small.hash("secret")
    await observer.wait_told()
    task = asyncio.create_task(small.verify(stored, held))
    assert await asyncio.to_thread(held.begun.wait, GUARD_SECONDS)
    await cancel(task)
    held.let_go.set()
    await observer.wait_told()
    gc.collect()
    assert complaints == []


async def test_every_piece_of_work_is_measured_once(small: Hasher, observer: Observer) -> None:
    stored = await small.hash("secret")
    await observer.wait_told()
    with pytest.raises(MismatchError):
        await small.verify(stored, "wrong")
    await observer.wait_told()
    with pytest.raises(ForeignHashError):
        await small.verify("not argon2", "secret")
    assert len(observer.seconds) == 2
    assert all(seconds > 0 for seconds in observer.seconds)


async def test_closing_waits_for_the_hash_under_way(small: Hasher, held: HeldSecret) -> None:
    running = await begin_hashing(small, held)
    closing = asyncio.create_task(asyncio.to_thread(small.close))
    held.let_go.set()
    async with asyncio.timeout(GUARD_SECONDS):
        await closing
        assert (await running).startswith("$argon2id$")
