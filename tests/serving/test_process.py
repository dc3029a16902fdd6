"""`recsys serve` itself: a process with its workers, from the first line to the exit code."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys import Recommender
from recsys.serving.http.keys import new_key
from tests.command_line import call
from tests.serving.engine.runs import saved_run

SECONDS = 120
"""Until a service that does not do what is waited for is given up."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(tmp_path_factory.mktemp("served") / "run")


class Serving:
    """A `recsys serve` that has been started."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    def out(self) -> str:
        return self._out.read_text()

    def err(self) -> str:
        return self._err.read_text()

    def wait_for(self, pattern: str) -> "re.Match[str]":
        """Until standard error holds a line."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            found = re.search(pattern, self.err())
            if found is not None:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said: {self.err()}{self.out()}")

    def address(self) -> str:
        return self.wait_for(r"Serving .* on (http://\S+)")[1]

    def workers(self) -> list[int]:
        """Processes that answer, as the system lists the children."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                line = folder.joinpath("cmdline").read_bytes()
            except (OSError, IndexError, ValueError):
                continue
            if parent == self.process.pid and b"spawn_main" in line:
                found.append(int(folder.name))
        return sorted(found)


@contextmanager
def serving(run: Path, *options: str) -> Iterator[Serving]:
    command = [sys.executable, "-m", "recsys", "serve", str(run), "--port", "0", "--drain", "0", *options]
    if "--metrics-port" not in options:
        command += ["--metrics-port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                command, stdout=out_file, stderr=err_file, env={**os.environ, "TMPDIR": folder}
            )
        found = Serving(process, out, err)
        children: list[int] = []
        try:
            yield found
            children = found.workers()
        finally:
            if process.poll() is None:
                children = children or found.workers()
                process.kill()
            process.wait()
            # A parent that was killed leaves its workers to end themselves.
            for pid in children:
                gone(pid)


def gone(pid: int) -> None:
    """Until a process has ended.

    Raises:
        AssertionError: it goes on.
    """
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} goes on")


def recommend(address: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{address}/v1/recommend", json=body, headers=headers, timeout=SECONDS)


def test_a_service_answers_as_the_model_does_and_ends_in_order(run: Path, tmp_path: Path) -> None:
    secret = new_key(tmp_path / "keys.toml", "shop", ("read", "write"))
    options = ("--keys", str(tmp_path / "keys.toml"), "--events", str(tmp_path / "events.db"), "--drain", "1")
    with serving(run, *options) as service:
        address = service.address()
        assert recommend(address, {"user": 1}).status_code == 401
        assert recommend(address, {"user": 1}, authorization="Bearer wrong").status_code == 401
        found = recommend(address, {"history": [1, 2, 3], "k": 5}, authorization=f"Bearer {secret}")
        assert found.status_code == 200
        expected = Recommender.load(run, device="cpu").recommend(histories=[[1, 2, 3]], k=5)
        assert [item["id"] for item in found.json()["items"]] == expected["item_id"].to_list()
        assert [item["score"] for item in found.json()["items"]] == pytest.approx(
            expected["score"].to_list(), abs=1e-5
        )

        event = {"events": [{"user": 1, "item": 7}]}
        sent = httpx.post(f"{address}/v1/events", json=event, headers={"x-api-key": secret}, timeout=SECONDS)
        assert (sent.status_code, sent.json()["accepted"]) == (200, 1)
        after = recommend(address, {"user": 1, "k": 20}, authorization=f"Bearer {secret}").json()
        assert after["last_seq"] == sent.json()["last_seq"]
        assert 7 not in [item["id"] for item in after["items"]]

        # The file of keys is read again.
        new_key(tmp_path / "other.toml", "other", ("read",))
        Path(tmp_path / "other.toml").replace(tmp_path / "keys.toml")
        service.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + SECONDS
        while recommend(address, {"user": 1}, authorization=f"Bearer {secret}").status_code != 401:
            assert time.monotonic() < until
            time.sleep(0.05)

        # It says that it ends before it does, and answers until then.
        service.process.send_signal(signal.SIGTERM)
        while httpx.get(f"{address}/readyz", timeout=SECONDS).status_code == 200:
            time.sleep(0.02)
        assert httpx.get(f"{address}/livez", timeout=SECONDS).status_code == 200
        assert recommend(address, {"user": 1}, authorization="Bearer no").status_code == 401
        assert service.process.wait(SECONDS) == 0
        assert secret not in service.out() + service.err()
        assert '"route": "/v1/recommend"' in service.out()
        assert "Traceback" not in service.out() + service.err()


def test_a_worker_that_is_killed_is_replaced_and_metrics_are_of_all(run: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics = free.getsockname()[1]
    with serving(run, "--workers", "2", "--no-events", "--metrics-port", str(metrics)) as service:
        address = service.address()
        before = service.workers()
        assert len(before) == 2
        until = time.monotonic() + SECONDS

        def counted(requests: int) -> str:
            """The metrics, once so many are counted: a worker counts when the answer is on its way."""
            row = (
                f'recsys_http_requests_total{{method="POST",route="/v1/recommend",status="200"}} {requests}.0'
            )
            while row not in (text := httpx.get(f"http://127.0.0.1:{metrics}/metrics").text):
                assert time.monotonic() < until
                time.sleep(0.05)
            return text

        for _ in range(10):
            assert recommend(address, {"user": 1}).status_code == 200
        counted(10)
        os.kill(before[0], signal.SIGKILL)
        service.wait_for(r"worker \d ended \(SIGKILL\)")
        while len(service.workers()) < 2 or service.workers() == before:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert recommend(address, {"user": 1}).status_code == 200
        # What a worker counted that was killed is not lost.
        assert 'recsys_model_info{name="default"' in counted(11)
        # The port is nobody else's while it is held.
        taken = call("serve", run, "--port", address.rpartition(":")[2], "--metrics-port", "0")
        assert taken.returncode == 2
        assert "--port" in taken.stderr
        assert len(taken.stderr.splitlines()) == 1
        children = service.workers()
        service.process.send_signal(signal.SIGKILL)
        for pid in children:
            gone(pid)


def test_a_service_is_ready_with_all_its_workers_and_begins_again_with_the_last_swap(
    run: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "monday")
    saved_run(runs / "tuesday", d_model=8)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, options = f"http://127.0.0.1:{port}", ("--models", str(runs), "--no-events", "--port", str(port))
    with serving(runs / "monday", *options, "--workers", "2") as service:
        until = time.monotonic() + SECONDS
        while not ready(address):
            assert time.monotonic() < until
        # Each request has a connection of its own, which either worker may get.
        assert all(ready(address) for _ in range(30))
        assert {recommend(address, {"user": 1}).status_code for _ in range(20)} == {200}
        load = httpx.post(f"{address}/v1/models/default/load", json={"path": "tuesday"}, timeout=SECONDS)
        assert load.status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(SECONDS) == 0
    with serving(runs / "monday", *options) as service:
        assert service.address() == address
        assert recommend(address, {"user": 1}).json()["version"] == load.json()["version"]
        said = service.wait_for(
            r"Beginning with what was in service last: default=(\S+) \(remove (\S+) to begin"
        )
        assert said[1] == str(runs / "tuesday")
        assert Path(said[2]).parent == runs


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=SECONDS).status_code == 200
    except httpx.TransportError:
        return False


def test_a_run_that_cannot_be_loaded_ends_the_service_in_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty", "--no-events") as service:
        assert service.process.wait(SECONDS) == 2
        lines = service.err().splitlines()
        assert lines[-1].startswith("Error: ")
        assert str(tmp_path / "empty") in lines[-1]
        assert "Traceback" not in service.err() + service.out()
