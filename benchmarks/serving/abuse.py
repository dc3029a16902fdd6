"""Clients that mean no good, beside one that does: ``python -m recsys.benchmarks.serving.abuse RUN``.

A good client asks 20 times a second, first alone, then while others hold the service in one of these ways:

    idle       connections that send nothing
    half       connections that have sent half of a request's head, and nothing since
    slow-head  a header's byte each second
    slow-body  the head at once, a byte of the body each second
    slow-read  whole requests for a file of 1.7 MB, which is never read

What has to hold: the good client is answered every time, its p99 is at most twice that of before (or 50 ms),
memory grows by less than 200 MiB, and afterwards the connections are gone from the service.
"""

import argparse
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.benchmarks.serving.asked import by_history, has_answers
from recsys.benchmarks.serving.open_loop import Load, drive, request
from recsys.benchmarks.serving.records import FOLDER, merge
from recsys.benchmarks.serving.server import Server
from recsys.errors import RecsysError
from recsys.recommender import Recommender

__all__ = ["WAYS", "Crowd"]

_HEAD = b"POST /v1/recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"

WAYS: dict[str, Callable[[int], bytes]] = {
    "idle": lambda step: b"",
    "half": lambda step: _HEAD if step == 0 else b"",
    "slow-head": lambda step: _HEAD + b"x-slow: " if step == 0 else b"a",
    "slow-body": lambda step: _HEAD + b"content-length: 100000\r\n\r\n" if step == 0 else b" ",
    "slow-read": lambda step: request("GET", "/docs/swagger-ui-bundle.js") if step == 0 else b"",
}
"""What each connection sends in which second."""


class Crowd:
    """Connections that are opened at once and misbehave in one way until they are let go.

    Args:
        port: of the service.
        count: connections.
        way: a name of `WAYS`.
    """

    def __init__(self, port: int, count: int, way: str) -> None:
        self._address, self._send = ("127.0.0.1", port), WAYS[way]
        self._reads = way != "slow-read"
        self._over = threading.Event()
        self._selector = selectors.DefaultSelector()
        self.closed_by_service = 0
        self.opened = 0
        for _ in range(count):
            own = socket.socket()
            if not self._reads:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            own.setblocking(False)
            own.connect_ex(self._address)
            self._selector.register(own, selectors.EVENT_READ | selectors.EVENT_WRITE, 0)
            self.opened += 1
        self._thread = threading.Thread(target=self._misbehave, daemon=True)
        self._thread.start()

    def _misbehave(self) -> None:
        step = 0
        while not self._over.is_set():
            began = time.monotonic()
            for key, events in self._selector.select(0.2):
                own = key.fileobj
                assert isinstance(own, socket.socket)
                try:
                    if events & selectors.EVENT_READ and self._reads and not own.recv(4096):
                        raise ConnectionResetError
                    if events & selectors.EVENT_WRITE and key.data <= step:
                        sent = self._send(key.data)
                        if sent:
                            own.send(sent)
                        self._selector.modify(key.fileobj, key.events, key.data + 1)
                except BlockingIOError:
                    continue
                except OSError:
                    self._selector.unregister(own)
                    own.close()
                    self.closed_by_service += 1
            step += 1
            self._over.wait(max(0.0, 1.0 - (time.monotonic() - began)))

    def end(self) -> None:
        """Close what is still open."""
        self._over.set()
        self._thread.join()
        for key in [*self._selector.get_map().values()]:
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def abuse(run: Path, connections: int, seconds: float, ways: list[str]) -> dict[str, Any]:
    """What a good client sees, and what it costs the service, for each way.

    Args:
        run: folder.
        connections: of the crowd.
        seconds: for which the crowd stays.
        ways: names of `WAYS`.
    """
    exchanges = by_history(Recommender.load(run, device="cpu"), 1000, seed=0)
    found: dict[str, Any] = {}
    for way in ways:
        with Server([str(run), "--no-events", "--drain", "0", "--grace", "5"]) as server:
            drive(Load(port=server.port, rate=20, seconds=2, connections=8), exchanges)
            by_itself = drive(
                Load(port=server.port, rate=20, seconds=seconds, connections=8), exchanges
            ).summary()
            memory, descriptors = server.memory(), server.descriptors()
            crowd = Crowd(server.port, connections, way)
            try:
                load = Load(port=server.port, rate=20, seconds=seconds, connections=8, patience=20)
                beside = drive(load, exchanges, has_answers).summary()
                grown, held = server.memory() - memory, server.descriptors() - descriptors
            finally:
                crowd.end()
            time.sleep(2)
            found[way] = {
                "connections": crowd.opened,
                "closed_by_service": crowd.closed_by_service,
                "by_itself": by_itself,
                "beside": beside,
                "memory_grew_mib": round(grown / 2**20, 1),
                "descriptors_more": held,
                "descriptors_left": server.descriptors() - descriptors,
                "kept": _kept(by_itself, beside, grown),
            }
    return found


def _kept(by_itself: dict[str, Any], beside: dict[str, Any], grown: int) -> bool:
    bound = max(50.0, 2 * by_itself["latency"]["p99_ms"])
    answered = not beside["failed"] and not beside["wrong"]
    return bool(answered and beside["latency"]["p99_ms"] <= bound and grown < 200 * 2**20)


def main() -> int:
    """Run, print, record; 1 if something did not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.abuse",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--connections", type=int, default=10_000, help="of the crowd (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each way (default: %(default)s)")
    parser.add_argument("--ways", default=",".join(WAYS), help="with commas between (default: all)")
    parser.add_argument("--out", type=Path, default=FOLDER / "abuse.json", help="record to write into")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        found = abuse(options.run, options.connections, options.seconds, options.ways.split(","))
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    merge(options.out, "python -m recsys.benchmarks.serving.abuse", "ways", found)
    for way, one in found.items():
        print(
            f"{way}: {one['connections']:,} connections, {one['closed_by_service']:,} closed by the service; "
            f"good client failed {one['beside']['failed']}, p99 {one['beside']['latency'].get('p99_ms')} ms "
            f"(alone {one['by_itself']['latency'].get('p99_ms')} ms); memory +{one['memory_grew_mib']} MiB, "
            f"descriptors +{one['descriptors_more']}, afterwards +{one['descriptors_left']}: "
            f"{'kept' if one['kept'] else 'NOT kept'}"
        )
    return 0 if all(one["kept"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
