"""Does an acknowledged event outlive ``kill -9``? Of a worker, and of all processes, again and again.

    python -m recsys.benchmarks.serving.kills RUN --rounds 200

A service of two workers with an event store is sent numbered events by 8 clients. At a moment by chance one
worker, or every process of the service, is killed; a worker is replaced by the service itself, after the end
of all the service is started again. Clients send again, under the same ids, half of what they got no answer
for. After each round the file is looked at: every acknowledged event is there once, nothing is there that was
not sent, SQLite finds the file whole; and the next answer for each client's user was made of every event of
theirs that was acknowledged.
"""

import argparse
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.serving.asked import users_of
from recsys.benchmarks.serving.numbered import Book, Client, Service
from recsys.benchmarks.serving.records import FOLDER, merge
from recsys.benchmarks.serving.server import Server
from recsys.errors import ConfigError, RecsysError
from recsys.recommender import Recommender

__all__ = ["kills"]

WORKERS = 2
CLIENTS = 8
_PATIENCE = 120.0
"""Seconds in which an ended worker has to be replaced."""


def kills(run: Path, rounds: int, minutes: float, seed: int = 0) -> dict[str, Any]:
    """Kill and look, so often.

    Args:
        run: folder of the run that is served.
        rounds: kills; a worker and all in turn.
        minutes: no round begins later than that.
        seed: of the moments, workers and events.

    Returns:
        Rounds by kind; events sent, acknowledged, found stored, lost, invented; looks at the file and answers
        for users, and how many of them were wrong; seconds until all workers were ready again.

    Raises:
        RecsysError: the service does not begin, or does not replace a worker.
    """
    model = Recommender.load(run, device="cpu")
    users = users_of(model, model.store_.n_users, seed)
    indices = {user: int(index) for user, index in zip(users, model._names.users.encode(users), strict=True)}
    items = model._names.items.decode(np.arange(model.store_.n_items, dtype=np.int64)).to_list()
    rng = np.random.default_rng(seed)
    books: dict[Any, Book] = {}
    done: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {"worker": [], "all": []}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        service = _Killed(run, Path(folder))
        try:
            while sum(done.values()) < rounds and time.perf_counter() - began < 60 * minutes:
                number = sum(done.values())
                kind = "all" if number % 2 else "worker"
                own = [users[(number * CLIENTS + client) % len(users)] for client in range(CLIENTS)]
                for user in own:
                    if user not in books:
                        books[user] = Book(user, len(model.store_.history(indices[user], "all")))
                clients = [
                    Client(books[user], items, service, f"{number}-{client}", int(rng.integers(2**32)))
                    for client, user in enumerate(own)
                ]
                for each in clients:
                    each.start()
                try:
                    time.sleep(rng.uniform(0.05, 1.0))
                    killed = time.perf_counter()
                    if kind == "all":
                        service.kill_all()
                        counts += _look(service.store, books)
                        service.start()
                    else:
                        service.kill_worker(int(rng.integers(WORKERS)))
                    seconds[kind].append(time.perf_counter() - killed)
                    time.sleep(0.1)
                finally:
                    for each in clients:
                        each.stop()
                for each in clients:
                    counts["unanswered"] += not each.ask()
                    counts += each.counts
                counts += _look(service.store, books)
                done[kind] += 1
                told = {name: counts[name] for name in _WRONG if counts[name]} or "nothing wrong"
                print(f"{number + 1}: {kind}, {counts['acknowledged']} acknowledged, {told}", flush=True)
        finally:
            service.end()
    return {
        "rounds": {"worker": done["worker"], "all": done["all"]},
        "workers": WORKERS,
        "clients": CLIENTS,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "sent": sum(len(book.sent) for book in books.values()),
        **{name: counts[name] for name in (*_COUNTED, *_WRONG)},
        "ready_again_s": {
            kind: {"median": round(float(np.median(some)), 2), "max": round(max(some), 2)}
            for kind, some in seconds.items()
            if some
        },
    }


_COUNTED = ("acknowledged", "sent_again", "stored_already", "cut_off", "refused", "late", "looks", "answers")
_WRONG = ("lost", "invented", "damaged", "answers_without", "answers_with_more", "unanswered", "wrong_status")


class _Killed(Service):
    """A service of one's own and its store, which outlives it."""

    def __init__(self, run: Path, folder: Path) -> None:
        self._run, self._folder = run, folder
        self.store = folder / "events.db"
        self.start()

    def start(self) -> None:
        """Begin, and wait until all workers are ready."""
        for left in self._folder.glob("recsys-serve-*"):
            shutil.rmtree(left, ignore_errors=True)
        arguments = [str(self._run), "--workers", str(WORKERS), "--events", str(self.store), "--drain", "0"]
        self._server = Server(arguments, environment={"TMPDIR": str(self._folder)})
        try:
            self._wait()
        except BaseException:
            self._server.end()
            raise
        self.port = self._server.port

    def kill_worker(self, number: int) -> None:
        """Kill a worker and wait for the one in its place."""
        os.kill(self._ready()[number], signal.SIGKILL)
        while len(self._ready()) == WORKERS:
            time.sleep(0.01)
        self._wait()

    def kill_all(self) -> None:
        """Kill every process, the first one first so that it replaces none."""
        for pid in self._server.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.end()

    def end(self) -> None:
        """End in order."""
        self._server.end()

    def _ready(self) -> list[int]:
        """Workers that live and have said that they are ready."""
        marks = {int(mark.name.rpartition("-")[2]) for mark in self._folder.glob("recsys-serve-*/ready-*")}
        return sorted(pid for pid in self._server.processes() if pid in marks and not _is_zombie(pid))

    def _wait(self) -> None:
        began = time.perf_counter()
        while len(self._ready()) < WORKERS:
            if time.perf_counter() - began > _PATIENCE:
                raise RecsysError(
                    f"{len(self._ready())} of {WORKERS} workers are ready after {_PATIENCE:g} s: "
                    + self._server.printed()
                )
            time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _look(store: Path, books: dict[Any, Book]) -> Counter[str]:
    """Compare a store with what was sent and acknowledged; the clients may be at work meanwhile."""
    # First what is known, then what is stored, then what was sent: each holds the one before.
    known = {name for book in books.values() for name in set(book.known)}
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)) as connection:
        stored = connection.execute("SELECT id, user, item FROM events").fetchall()
        whole = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    sent = {name: (book.user, item) for book in books.values() for name, item in list(book.sent.items())}
    times = Counter(name for name, _, _ in stored)
    return Counter(
        looks=1,
        lost=sum(times[name] != 1 for name in known),
        invented=sum(sent.get(name) != (user, item) for name, user, item in stored),
        damaged=int(not whole),
    )


def main() -> int:
    """Run, print, record; 1 if an event was lost, invented or missing in an answer."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.kills",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=200, help="kills (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and events (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "kills.json", help="record to write")
    options = parser.parse_args()
    try:
        if options.rounds < 1 or options.minutes <= 0:
            raise ConfigError("--rounds and --minutes have to be above 0")
        found = kills(options.run, options.rounds, options.minutes, options.seed)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    merge(options.out, "python -m recsys.benchmarks.serving.kills", "kills", {"sqlite": found})
    wrong = {name: found[name] for name in _WRONG if found[name]}
    print(f"{found['acknowledged']} acknowledged, {'NOT kept: ' + str(wrong) if wrong else 'all kept'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
