"""The open-loop client against a server of a few lines, whose delays are known."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from recsys.benchmarks.serving.open_loop import Load, drive, request
from recsys.benchmarks.serving.records import median, quantiles
from recsys.errors import ArgumentError

Answer = Callable[[str, bytes], tuple[int, bytes, float]]


@contextmanager
def served(answer: Answer) -> Iterator[int]:
    """Port of a server that answers (path, body) by (status, body, seconds before it does)."""
    ready, over, port = threading.Event(), asyncio.Event(), [0]
    loops: list[asyncio.AbstractEventLoop] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        size = int(line.split(b":")[1])
                status, body, wait = answer(head.split()[1].decode(), await reader.readexactly(size))
                await asyncio.sleep(wait)
                if status == 0:
                    break
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        writer.close()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port[0] = server.sockets[0].getsockname()[1]
        ready.set()
        await over.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield port[0]
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()


def test_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    due = Load(port=1, rate=500, seconds=20, seed=3).due()
    gaps = np.diff(due)
    assert abs(len(due) - 10_000) < 400
    assert due[-1] < 20
    assert gaps.std() / gaps.mean() == pytest.approx(1, abs=0.05)
    assert not np.array_equal(due[:50], Load(port=1, rate=500, seconds=20, seed=4).due()[:50])


def test_every_exchange_is_sent_in_turn_and_its_parts_follow_one_another() -> None:
    seen: list[tuple[str, bytes]] = []

    def answer(path: str, body: bytes) -> tuple[int, bytes, float]:
        seen.append((path, body))
        return 200, body[::-1], 0.0

    pairs = [
        [request("POST", f"/first{n}", b"ab"), request("POST", f"/second{n}", b"cd%d" % n)] for n in (0, 1)
    ]
    with served(answer) as port:
        found = drive(
            Load(port=port, rate=100, seconds=0.3, connections=1),
            pairs,
            lambda number, bodies: [*bodies] == [b"ba", b"0dc"],
        )
    assert [path for path, _ in seen[:4]] == ["/first0", "/second0", "/first1", "/second1"]
    assert found.statuses == {200: found.due}
    assert found.due == len(seen) // 2 == found.good
    assert found.wrong == [number for number in range(found.due) if number % 2]


def test_latency_counts_from_when_a_request_was_due_and_not_from_when_it_got_away() -> None:
    waits = iter([0.4])
    with served(lambda path, body: (200, b"", next(waits, 0.0))) as port:
        found = drive(Load(port=port, rate=100, seconds=0.3, connections=1), [[request("GET", "/")]])
    taken, served_in = found.taken[200], found.served[200]
    assert found.good == found.due > 10
    # All were due while the first one was in the way of the only connection.
    assert sum(seconds > 0.08 for seconds in taken) == found.due
    assert max(taken) > 0.38
    assert sum(seconds > 0.3 for seconds in served_in) == 1


def test_what_finds_no_place_is_not_sent_and_what_takes_too_long_is_given_up() -> None:
    with served(lambda path, body: (200, b"", 5.0)) as port:
        load = Load(port=port, rate=200, seconds=0.2, connections=2, waiting=3, patience=0.4)
        found = drive(load, [[request("GET", "/")]])
    assert found.good == 0
    assert sum(found.statuses.values()) == found.due
    # Two on their way; those that waited for them were never sent, or given up as soon as they were.
    assert found.statuses[-1] >= 2
    assert found.statuses[-2] >= found.due - 8
    assert found.summary()["statuses"].keys() == {"timed_out", "not_sent"}


def test_refusals_and_broken_connections_are_counted_apart() -> None:
    replies = iter([(200, b"", 0.0), (503, b"", 0.0), (0, b"", 0.0)] * 1000)
    with served(lambda path, body: next(replies)) as port:
        found = drive(Load(port=port, rate=300, seconds=0.3, connections=4), [[request("GET", "/")]])
    counts = found.summary()["statuses"]
    assert counts.keys() == {"200", "503", "broken"}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert found.summary()["failed"] == counts["503"] + counts["broken"]
    assert found.summary()["refused"]["p50_ms"] > 0


def test_load_goes_to_the_loopback_alone() -> None:
    with pytest.raises(ArgumentError, match="loopback alone"):
        drive(Load(host="10.0.0.1", port=80, rate=1, seconds=1), [[b""]])


def test_figures_are_medians_of_rounds_and_quantiles_in_milliseconds() -> None:
    assert quantiles([0.001] * 98 + [0.002, 0.1]) == {
        "p50_ms": 1.0,
        "p90_ms": 1.0,
        "p99_ms": pytest.approx(2.98),
        "max_ms": 100.0,
    }
    assert quantiles([]) == {}
    rounds = [{"a": x, "b": {"c": x + 1, "d": "same"}, **({"e": 1} if x else {})} for x in (0, 5, 2)]
    assert median(rounds) == {"a": 2.0, "b": {"c": 3.0, "d": "same"}}
