"""A service whose event store goes away and comes back: what is refused and what is answered meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from recsys.benchmarks.serving.server import Server
from recsys.events.by_place import open_events
from tests.conftest import postgres_server
from tests.events.conftest import new_database
from tests.serving.engine.runs import saved_run

SECONDS = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("lost") / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def send(server: Server, path: str, body: Any) -> tuple[int, Any]:
    status, text = server.ask("POST", path, body, timeout=SECONDS)
    return status, json.loads(text)


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.1)


def events(start: int, count: int) -> dict[str, Any]:
    return {"events": [{"user": 1, "item": n % 20, "id": f"event-{n}"} for n in range(start, start + count)]}


def degraded(server: Server) -> bool:
    status, text = server.ask("GET", "/readyz")
    assert status == 200
    return b"degraded" in text


def test_a_full_disk_refuses_events_until_there_is_room(run: Path, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(500_000))
    place = small_disk / "events.db"
    with Server([str(run), "--events", str(place), "--drain", "0"]) as server:
        accepted, start, status = 0, 0, 200
        while status == 200:
            assert start < 50_000
            status, found = send(server, "/v1/events", events(start, 200))
            accepted += found.get("accepted", 0)
            start += 200
        assert status == 507
        assert found["detail"].endswith("the disk is full; free some space, nothing has to be restarted")
        assert accepted > 0
        assert degraded(server)
        # Users, whose events are read, as well as histories.
        assert send(server, "/v1/recommend", {"user": 1})[0] == 200
        assert send(server, "/v1/recommend", {"history": [1, 2]})[0] == 200
        status, _ = send(server, "/v1/events", events(start - 200, 200))
        assert status == 507
        filler.unlink()
        status, found = send(server, "/v1/events", events(start - 200, 200))
        assert (status, found["accepted"]) == (200, 200)
        assert not degraded(server)
        answer = send(server, "/v1/recommend", {"user": 1})[1]
        assert answer["last_seq"] == found["last_seq"]
    with closing(apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READWRITE)) as file:
        assert file.pragma("integrity_check") == "ok"
    with closing(open_events(place)) as store:
        ids = [own.event.id for part in store.read_all() for own in part]
        assert ids == [f"event-{n}" for n in range(accepted + 200)]


@pytest.fixture
def database() -> Iterator[tuple[Any, str]]:
    """A server of this test's own, and the URL of a database of it."""
    with postgres_server() as running:
        try:
            yield running, new_database(running.get_uri())
        finally:
            running.ensure_postgres_running()  # or it could not be ended


def test_a_database_that_is_lost_is_found_again(run: Path, database: tuple[Any, str]) -> None:
    running, url = database
    with Server([str(run), "--events", url, "--drain", "0"]) as server:
        assert send(server, "/v1/events", events(0, 3))[1]["accepted"] == 3
        before = send(server, "/v1/recommend", {"user": 1})[1]
        assert before["last_seq"] == 3
        os.kill(running.get_pid(), signal.SIGQUIT)  # an immediate shutdown
        until(lambda: not (running.pgdata / "postmaster.pid").exists())
        status, found = send(server, "/v1/events", events(3, 3))
        assert (status, found["type"]) == (507, "urn:recsys:problem:store-full")
        assert "see to the server" in found["detail"]
        # What is known of the user cannot be read, nor whether they were erased.
        status, found = send(server, "/v1/recommend", {"user": 1})
        assert (status, found["type"]) == (503, "urn:recsys:problem:store-unavailable")
        assert send(server, "/v1/recommend", {"history": [1, 2]})[0] == 200
        until(lambda: degraded(server))
        assert server.ask("GET", "/livez")[0] == 200
        running.ensure_postgres_running()
        status, found = send(server, "/v1/events", events(3, 3))
        assert (status, found["accepted"]) == (200, 3)
        assert send(server, "/v1/recommend", {"user": 1})[1]["last_seq"] == found["last_seq"]
        until(lambda: not degraded(server))
        assert "Traceback" not in server.printed(100_000)
