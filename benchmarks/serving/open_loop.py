"""An open-loop client: requests leave when a schedule says so, whether or not the answers before have come.

A closed loop (wrk, hey, locust) waits for an answer before it asks again, so that a slow server is asked less
and its queue is never seen. Here arrivals are a Poisson process that knows nothing of the server, and a
latency counts from the moment at which the request was due, not from when it got away: ETUDE's Algorithm 2
(ICDE 2024). As there, the load is bounded: no more connections than given, and what finds none and `waiting`
others before it is given up, counted as not sent.

The client speaks HTTP/1.1 on kept connections by asyncio protocols, which costs it about 0.1 ms a request.
It goes to the loopback alone.
"""

import asyncio
import gc
import ipaddress
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recsys.benchmarks.serving.records import quantiles
from recsys.errors import ArgumentError

__all__ = ["Exchange", "Load", "Outcome", "drive", "request"]

_SELECTED = 128
"""Connections up to which select is quick enough."""

Exchange = Sequence[bytes]
"""Requests that follow one another on a connection, each after the answer before it; timed together."""

Check = Callable[[int, Sequence[bytes]], bool]
"""Whether the answers to an exchange of this number, a body for each of its requests, are right."""


def request(method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """A request as it goes over the wire, on a connection that is kept."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost"]
    if body or method in ("POST", "PUT"):
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """How much is asked of whom.

    Attributes:
        host: an address of the loopback.
        port: of it.
        rate: exchanges a second at the mean.
        seconds: of the schedule.
        connections: at most open at a time.
        waiting: exchanges that are due and have no connection, at most; more are not sent.
        patience: seconds for an exchange from when it was due, after which it is given up as timed out.
        seed: of the arrivals.
    """

    host: str = "127.0.0.1"
    port: int
    rate: float
    seconds: float
    connections: int = 64
    waiting: int = 1024
    patience: float = 5.0
    seed: int = 0

    def due(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Seconds after the beginning at which exchanges are due: a Poisson process."""
        rng = np.random.default_rng(self.seed)
        gaps = rng.exponential(1 / self.rate, int(self.rate * self.seconds * 1.2) + 50)
        times = np.cumsum(gaps)
        return times[times < self.seconds]


@dataclass(slots=True)
class Outcome:
    """What became of a load.

    Attributes:
        seconds: of the schedule.
        due: exchanges of it.
        statuses: last status of an exchange to how many had it; 0 is a connection that broke, -1 one that was
            given up, -2 an exchange that was not sent.
        taken: status to seconds from when each was due to the end of its answer.
        served: status to seconds from when each was sent to the end of its answer.
        late: seconds that sending came after it was due, of every one that was sent.
        wrong: numbers of exchanges whose answer a check did not pass.
        done: for each answered by 2xx the second, from the beginning, at which its answer was there.
    """

    seconds: float
    due: int
    statuses: Counter[int] = field(default_factory=Counter)
    taken: dict[int, list[float]] = field(default_factory=dict)
    served: dict[int, list[float]] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    @property
    def good(self) -> int:
        """Exchanges that were answered by 2xx."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)

    def summary(self) -> dict[str, Any]:
        """Rates, latencies of what was answered, and of what was refused with 503 or 429."""
        good = [t for status, times in self.taken.items() if 200 <= status < 300 for t in times]
        refused = [t for status in (429, 503) for t in self.served.get(status, ())]
        names = {0: "broken", -1: "timed_out", -2: "not_sent"}
        return {
            "offered_per_s": float(f"{self.due / self.seconds:.5g}"),
            "good_per_s": float(f"{self.good / max(self.seconds, max(self.done, default=0.0)):.5g}"),
            "failed": self.due - self.good,
            "wrong": len(self.wrong),
            "statuses": {names.get(s, str(s)): count for s, count in sorted(self.statuses.items())},
            "latency": quantiles(good),
            "refused": quantiles(refused),
            "sent_late": quantiles(self.late),
        }


class _Connection(asyncio.Protocol):
    """One kept connection: sends an exchange's requests one after the other and reads their answers."""

    def __init__(self, finished: "Callable[[_Connection], None]") -> None:
        self._finished = finished
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._rest: deque[bytes] = deque()
        self.number, self.due, self.sent = -1, 0.0, 0.0
        self.status = 0
        self.bodies: list[bytes] = []
        self.broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, number: int, due: float, exchange: Exchange) -> None:
        assert self._transport is not None
        self.number, self.due, self.sent = number, due, time.perf_counter()
        self._rest, self.bodies = deque(exchange), []
        self._transport.write(self._rest.popleft())

    def drop(self) -> None:
        """Close at once, without telling anybody."""
        self.number, self.broken = -1, True
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self.number < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = head.find(b"\r\ncontent-length:")
        if length < 0:
            # Chunked: whole with its last, empty chunk.
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
            size = len(self._buffer) - end - 4
        else:
            size = int(head[length + 17 :].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + size:
            return
        self.status = int(head[9:12])
        self.bodies.append(bytes(self._buffer[end + 4 : end + 4 + size]))
        del self._buffer[: end + 4 + size]
        if b"\r\nconnection: close" in head:
            self.broken = True
        if self._rest and 200 <= self.status < 300 and not self.broken:
            assert self._transport is not None
            self._transport.write(self._rest.popleft())
            return
        self._finished(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken = True
        if self.number >= 0:
            self.status = 0
            self._finished(self)


class _Driver:
    def __init__(self, load: Load, exchanges: Sequence[Exchange], check: Check | None) -> None:
        self._load, self._exchanges, self._check = load, exchanges, check
        self._due = load.due()
        self._outcome = Outcome(load.seconds, len(self._due))
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._opening = 0
        self._queue: deque[tuple[int, float]] = deque()
        self._left = len(self._due)
        self._began = 0.0
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Outcome:
        for _ in range(min(4, self._load.connections)):
            self._opening += 1
            await self._open()
        self._began = time.perf_counter()
        for number, offset in enumerate(self._due):
            due = self._began + float(offset)
            wait = due - time.perf_counter()
            # A loop that is late lets answers in between, but does not sleep.
            await asyncio.sleep(max(wait, 0.0))
            self._expire()
            self._take(number, due)
        ends = time.perf_counter() + self._load.patience
        while self._left and time.perf_counter() < ends:
            try:
                await asyncio.wait_for(self._over.wait(), 0.2)
            except TimeoutError:
                self._expire()
        for one in [*self._busy]:
            self._settle(one.number, one.due, one.sent, -1)
        for number, due in self._queue:
            self._settle(number, due, None, -2)
        for one in [*self._busy, *self._idle]:
            one.drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return self._outcome

    def _take(self, number: int, due: float) -> None:
        if self._idle:
            self._send(self._idle.pop(), number, due)
            return
        if len(self._queue) >= self._load.waiting:
            self._settle(number, due, None, -2)
            return
        self._queue.append((number, due))
        if len(self._busy) + self._opening < self._load.connections and self._opening < len(self._queue):
            self._opening += 1
            task = asyncio.ensure_future(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._finished), self._load.host, self._load.port
            )
        except OSError:
            if self._queue:
                number, due = self._queue.popleft()
                self._settle(number, due, time.perf_counter(), 0)
            return
        finally:
            self._opening -= 1
        self._free(connection)

    def _free(self, connection: _Connection) -> None:
        if self._queue:
            self._send(connection, *self._queue.popleft())
        else:
            self._idle.append(connection)

    def _send(self, connection: _Connection, number: int, due: float) -> None:
        if connection.broken:
            self._take(number, due)
            return
        self._busy.add(connection)
        connection.send(number, due, self._exchanges[number % len(self._exchanges)])

    def _finished(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        number, connection.number = connection.number, -1
        self._settle(number, connection.due, connection.sent, connection.status, connection.bodies)
        if not connection.broken:
            self._free(connection)
        elif self._queue:
            self._take(*self._queue.popleft())

    def _expire(self) -> None:
        past = time.perf_counter() - self._load.patience
        for one in [one for one in self._busy if one.due < past]:
            self._busy.discard(one)
            self._settle(one.number, one.due, one.sent, -1)
            one.drop()

    def _settle(
        self, number: int, due: float, sent: float | None, status: int, bodies: Sequence[bytes] = ()
    ) -> None:
        now, outcome = time.perf_counter(), self._outcome
        outcome.statuses[status] += 1
        if sent is not None:
            outcome.late.append(sent - due)
            outcome.taken.setdefault(status, []).append(now - due)
            outcome.served.setdefault(status, []).append(now - sent)
        if 200 <= status < 300:
            outcome.done.append(now - self._began)
            if self._check is not None and not self._check(number, bodies):
                outcome.wrong.append(number)
        self._left -= 1
        if not self._left:
            self._over.set()


def drive(load: Load, exchanges: Sequence[Exchange], check: Check | None = None) -> Outcome:
    """Put a load on a server and wait for its end.

    Args:
        load: how much, of whom.
        exchanges: taken in turn; `request` makes their parts.
        check: of every answer by 2xx; answers that it does not pass are counted.

    Raises:
        ArgumentError: the host is not on the loopback, or there is nothing to send.
    """
    if not ipaddress.ip_address(load.host).is_loopback:
        raise ArgumentError(f"host {load.host!r}: load goes to the loopback alone, as 127.0.0.1")
    if not exchanges:
        raise ArgumentError("exchanges: there are none; give one or more")
    # The client's own collections of garbage, of a tenth of a second, would count as the server's time.
    collects = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: _loop(load.connections)) as runner:
            return runner.run(_run(load, exchanges, check))
    finally:
        if collects:
            gc.enable()


def _loop(connections: int) -> asyncio.AbstractEventLoop:
    """A loop that wakes up when a request is due: epoll waits in whole milliseconds, select does not.

    select looks at every connection each time it waits, 50 us for 700 of them, and takes descriptors below
    1,024 alone; for more, epoll has to do.
    """
    with socket.socket() as next_one:
        few = connections <= _SELECTED and next_one.fileno() + connections + 16 < 1024
    return asyncio.SelectorEventLoop(selectors.SelectSelector() if few else selectors.DefaultSelector())


async def _run(load: Load, exchanges: Sequence[Exchange], check: Check | None) -> Outcome:
    return await _Driver(load, exchanges, check).run()
