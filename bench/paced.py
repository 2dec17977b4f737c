"""An open loop of clients: requests begin when they are due, answered or not. `python -m bench.paced < errand`"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import Counter, deque
from typing import Any, cast

import uvloop

from bench.load import LENGTH

TICK_SECONDS = 0.001


class Client(asyncio.Protocol):
    """One connection: asks when told, and says when it was answered or lost."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.buffer = b""
        self.due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not separator or length is None or len(body) < int(length[1]):
            return
        self.buffer = b""
        self.crowd.hear(self, head[9:12].decode(), closes=b"\r\nconnection: close" in head.lower())

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.lose(self)


class Crowd:
    """At most `connections` clients; with `fresh` each of them asks once."""

    def __init__(
        self, *, port: int, connections: int, rate: float, seconds: float, fresh: bool, requests: list[str]
    ) -> None:
        self.port, self.connections, self.rate, self.seconds, self.fresh = port, connections, rate, seconds, fresh
        self.requests = itertools.cycle([request.encode() for request in requests])
        self.idle: deque[Client] = deque()
        self.open = 0
        self.answers: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> dict[str, Any]:
        started = time.perf_counter()
        begun = held = 0
        while (now := time.perf_counter() - started) < self.seconds:
            for number in range(begun + held, int(now * self.rate)):
                if self.begin(started + number / self.rate):
                    begun += 1
                else:
                    held += 1
            await asyncio.sleep(TICK_SECONDS)
        await asyncio.sleep(0.5)  # what is answered later does not count
        self.latencies.sort()
        count = len(self.latencies)
        return {
            "begun": begun,
            "held": held,  # due when no connection was free
            "answers": dict(self.answers),
            "rate": count / self.seconds,
            "p50_ms": self.latencies[count // 2] * 1000 if count else None,
            "p99_ms": self.latencies[count * 99 // 100] * 1000 if count else None,
        }

    def begin(self, due: float) -> bool:
        while self.idle:
            client = self.idle.popleft()
            if not client.transport.is_closing():
                client.ask(next(self.requests), due)
                return True
        if self.open >= self.connections:
            return False
        self.open += 1
        task = asyncio.get_running_loop().create_task(self.connect(next(self.requests), due))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def connect(self, request: bytes, due: float) -> None:
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", self.port)
        except OSError:
            self.open -= 1
            self.answers["unconnected"] += 1
        else:
            client.ask(request, due)

    def hear(self, client: Client, status: str, *, closes: bool) -> None:
        self.answers[status] += 1
        if client.due is not None:
            self.latencies.append(time.perf_counter() - client.due)
            client.due = None
        if closes or self.fresh:
            client.transport.close()
        else:
            self.idle.append(client)

    def lose(self, client: Client) -> None:
        self.open -= 1
        if client.due is not None:
            self.answers["cut"] += 1


async def main(errand: dict[str, Any]) -> None:
    print(json.dumps(await Crowd(**errand).run()))


if __name__ == "__main__":
    uvloop.run(main(json.load(sys.stdin)))
