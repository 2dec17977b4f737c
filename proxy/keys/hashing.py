"""argon2id behind a bounded pool of threads: the only room that imports argon2.  [io]

In go secrets and argon2 strings, out comes yes (return) or no (MismatchError). It knows no key and no request.

A 256-bit random secret gains little from a slow hash (it is defence in depth against a broken generator), while the
price is paid by every key after a restart. So the default is m = 8,192 KiB, t = 1, p = 1 (3.5 ms, measured), not
OWASP's password floor of m = 19,456 KiB, t = 2 (19 ms: minutes for 10,000 keys); p = 1, or each hash starts threads of
its own. A full pool is "busy", never "wrong".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError

from proxy.errors import ProxyError, Reason, UnavailableError


class MismatchError(ProxyError):
    """The secret is not the one this argon2 string was made from."""


class ForeignHashError(ProxyError):
    """The argon2 string is not one we would have made: a hostile m = 1 GiB row must not run."""


class Hasher:
    """Hashes and verifies in `threads` threads, at most `queue_size` waiting.

    The permit belongs to the thread that works, not to the request that may be cancelled: it is given back only when
    the thread is done.
    """

    def __init__(
        self,
        *,
        memory_cost_kib: int,
        time_cost: int,
        threads: int | None,
        queue_size: int,
        timeout_seconds: float,
        observe_seconds: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._argon2 = PasswordHasher(
            time_cost=time_cost, memory_cost=memory_cost_kib, parallelism=1, hash_len=32, salt_len=16, type=Type.ID
        )
        self._bounds = (memory_cost_kib, time_cost)
        workers = threads or max(1, min(4, (os.cpu_count() or 1) - 1))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._permits = workers + queue_size
        self._timeout_seconds = timeout_seconds
        self._observe_seconds = observe_seconds
        self.pending = 0

    async def hash(self, secret: str) -> str:
        """The argon2 string of a secret. Raises UnavailableError when the pool is full or too slow."""
        return await self._work(self._argon2.hash, secret)

    async def verify(self, argon2_string: str, secret: str) -> None:
        """Return when the secret fits. Raises MismatchError, ForeignHashError, UnavailableError."""
        self.check_parameters(argon2_string)
        try:
            await self._work(self._argon2.verify, argon2_string, secret)
        except VerifyMismatchError as error:
            raise MismatchError("the secret does not match") from error
        except (Argon2Error, InvalidHashError) as error:
            raise ForeignHashError("the stored argon2 string cannot be verified") from error

    def check_parameters(self, argon2_string: str) -> None:
        """Raises ForeignHashError unless the string is argon2id with costs no higher than ours."""
        try:
            found = extract_parameters(argon2_string)
        except (InvalidHashError, ValueError, IndexError) as error:  # InvalidHashError is outside Argon2Error
            raise ForeignHashError("the stored string is not argon2") from error
        memory_cost_kib, time_cost = self._bounds
        if (
            not argon2_string.isascii()
            or found.type is not Type.ID
            or found.parallelism != 1
            or not 8 <= found.memory_cost <= max(memory_cost_kib, 19_456)  # OWASP's floor is welcome in any row
            or not 1 <= found.time_cost <= max(time_cost, 2)
            or found.hash_len > 64
            or found.salt_len > 64
        ):
            raise ForeignHashError("the stored argon2 string has parameters that are not ours")

    async def _work(self, function: Callable[..., str | bool], *arguments: str) -> str:
        if self.pending >= self._permits:
            raise UnavailableError(
                Reason.HASHING_BUSY, "Too many keys are being verified right now.", retry_after_seconds=1
            )
        loop = asyncio.get_running_loop()
        started = loop.time()
        self.pending += 1
        work: Future[str | bool] = self._pool.submit(function, *arguments)
        work.add_done_callback(lambda _: self._give_back(loop, started))
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return str(await asyncio.shield(asyncio.wrap_future(work)))
        except TimeoutError as error:
            raise UnavailableError(
                Reason.HASHING_BUSY, "Verifying the key took too long.", retry_after_seconds=1
            ) from error

    def _give_back(self, loop: asyncio.AbstractEventLoop, started: float) -> None:
        """Runs in the worker's thread, when the hash is really done."""
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._release, loop, started)

    def _release(self, loop: asyncio.AbstractEventLoop, started: float) -> None:
        self.pending -= 1
        self._observe_seconds(loop.time() - started)

    def close(self) -> None:
        """Wait for the hashes under way and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
