"""Processes that are killed while they write: what they were told is there, once, and whole."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from recsys.events.by_place import open_events
from recsys.events.store import Event

ROUNDS = 10
POST = 40

WRITER = """
import os, sys
from recsys.events.by_place import open_events
from recsys.events.store import Event
place, name, post = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_events(place)
for number in range(1_000_000):
    store.append([Event(name, each, number, id=f"{name}-{number}-{each}") for each in range(post)])
    os.write(1, b"%d\\n" % number)
"""


def test_acknowledged_events_outlive_kill_nine_and_posts_are_there_whole_or_not_at_all(place: str) -> None:
    """Two writers a round, killed at different moments; the store stays open here and goes on."""
    draw = random.Random(8)
    with closing(open_events(place)) as store:
        for number in range(ROUNDS):
            acknowledged = _killed_writers(place, [f"{number}a", f"{number}b"], draw)
            for name, told in acknowledged.items():
                stored = [(each.event.time, each.event.item) for each in store.tail(name)]
                posts = len(stored) // POST
                assert sorted(stored) == [(post, item) for post in range(posts) for item in range(POST)]
                # The last post may have been stored without a word of it.
                assert told <= posts <= told + 1
            assert store.append([Event("own", number, number)])[:2] == (1, 0)
        assert [each.event.item for each in store.tail("own")] == list(range(ROUNDS))
        places = [each.seq for part in store.read_all() for each in part]
        assert places == sorted(set(places))
    with closing(open_events(place)) as again:
        assert [each.seq for part in again.read_all() for each in part] == places
    if not place.startswith("postgresql://"):
        apsw = pytest.importorskip("apsw")
        with closing(apsw.Connection(place)) as connection:
            assert connection.pragma("integrity_check") == "ok"


def _killed_writers(place: str, names: list[str], draw: random.Random) -> dict[str, int]:
    """Posts that each writer was told to be stored before it was killed; every one was told of some."""
    writers = {
        name: subprocess.Popen([sys.executable, "-c", WRITER, place, name, str(POST)], stdout=subprocess.PIPE)
        for name in names
    }
    told: dict[str, int] = {}
    try:
        first = {}
        for name, writer in writers.items():
            assert writer.stdout is not None
            first[name] = writer.stdout.readline()
        for name, writer in writers.items():
            time.sleep(draw.uniform(0.0, 0.1))
            os.kill(writer.pid, signal.SIGKILL)
            rest, _ = writer.communicate()
            assert writer.returncode == -signal.SIGKILL
            told[name] = (first[name] + rest).count(b"\n")
            assert told[name] > 0
    finally:
        for writer in writers.values():
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
    return told
