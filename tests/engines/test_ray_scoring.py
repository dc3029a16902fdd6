"""`recsys score --engine ray`: the same bytes, whoever is lost on the way.

What uses Ray is in processes of its own: this one holds the cluster.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys import Recommender
from recsys.answering.offline_scoring import Scoring
from recsys.engines.ray_scoring import score_with_ray, scoring_of
from recsys.engines.ray_workers import MOST_LOST
from recsys.engines.scoring_request import ScoringRequest
from recsys.errors import ArgumentError, RunError
from tests.command_line import call, call_json, start
from tests.conftest import random_log
from tests.engines.cluster import TestCluster

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 16}
PARTS = 120


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("ray"))
    log = random_log(users=2 * PARTS, items=40, seed=11)
    options = {"epochs": 1, "batch_events": 512}
    model = Recommender("sasrec", encoder_options=SMALL, training_options=options, index="exact").fit(log)
    model.save(folder / "run")
    (folder / "deny.txt").write_text("3\n7\n")
    return folder / "run"


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def wanted(run: Path, out: Path) -> list[object]:
    return [run, "--out", out, "--k", 5, "--part-users", 2, "--deny", run.parent / "deny.txt"]


def on_ray(cluster: TestCluster) -> list[object]:
    return ["--engine", "ray", "--address", cluster.address, "--workers", 2]


def once_parts_are_there(out: Path, count: int, then: Callable[[], Any]) -> threading.Thread:
    """A thread that does something when a folder holds so many parts."""

    def watch() -> None:
        until = time.monotonic() + 60
        while len(list(out.glob("part-*"))) < count and time.monotonic() < until:
            time.sleep(0.005)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_parts_are_the_same_whatever_is_lost(run: Path, ray: TestCluster, tmp_path: Path) -> None:
    call_json("score", *wanted(run, tmp_path / "here"))
    out, found = tmp_path / "there", {}

    # The caller goes first.
    caller = start("score", *wanted(run, out), *on_ray(ray))
    once_parts_are_there(out, 5, caller.kill).join()
    caller.communicate()
    assert not (out / "_SUCCESS").exists()
    until = time.monotonic() + 30
    while ray.workers("PartWriter") and time.monotonic() < until:
        time.sleep(0.05)
    before = len(list(out.glob("part-*")))
    assert 5 <= before < PARTS - 20

    # Called again, a worker goes, and then a machine.
    def kill_a_worker() -> None:
        found["killed"] = ray.workers("PartWriter")[0]
        os.kill(found["killed"], signal.SIGKILL)
        found["after_kill"] = len(list(out.glob("part-*")))

    def remove_a_machine() -> None:
        ray.remove_second()
        found["after_removal"] = len(list(out.glob("part-*")))

    threads = [
        once_parts_are_there(out, before + 5, kill_a_worker),
        once_parts_are_there(out, before + 15, remove_a_machine),
    ]
    answered, said = start("score", *wanted(run, out), *on_ray(ray), "--json").communicate()
    assert f"{before} of {PARTS} parts were there already\n" in said
    for thread in threads:
        thread.join()
    assert found["after_kill"] < PARTS
    assert found["after_removal"] < PARTS
    report = json.loads(answered)
    assert (report["resumed"], report["users"]) == (before, 2 * PARTS)
    assert files(out) == files(tmp_path / "here")
    ray.add_second()


LOST = r"""
import os, sys
from recsys.engines.ray_cluster import ray_cluster
from recsys.engines.ray_workers import each_by_workers
from recsys.errors import RunError

class Worker:
    def __init__(self, unable):
        self.unable = unable

    def open(self):
        return self.unable

    def work(self, number):
        if number == 1:
            os._exit(3)
        return f"{number} is refused" if number == 2 else ""

def show(numbers, unable=""):
    try:
        for done in each_by_workers(ray, numbers, Worker, {"unable": unable}, workers=1, num_cpus=1):
            shown.append(" ".join(map(str, done)))
    except RunError as error:
        shown.append(str(error).partition(" (")[0])

shown = []
with ray_cluster(sys.argv[1]) as ray:
    show([0], unable="no such run")
    show([2, 0, 1, 3])
    try:
        with ray_cluster(sys.argv[1]):
            pass
    except RunError as error:
        shown.append(str(error))
try:
    with ray_cluster("127.0.0.1"):
        pass
except RunError as error:
    shown.append(str(error).partition(" (")[0])
print(*shown, sep="\n")
"""


def test_work_that_ends_its_worker_is_given_up(ray: TestCluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, ray.address], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.splitlines() == [
        "no such run",
        "2 2 is refused",
        "0 ",
        f"part 1 ended its worker, {MOST_LOST} times",
        "this process uses Ray already: call ray.shutdown() first",
        "no Ray cluster at address='127.0.0.1'",
    ], done.stderr


def test_a_worker_that_sees_other_files_writes_nothing(run: Path, tmp_path: Path) -> None:
    model = Recommender.load(run, device="cpu")
    users = tmp_path / "users.parquet"
    pl.DataFrame({"user_id": [5, 9]}).write_parquet(users)
    request = ScoringRequest(users=str(users), deny=str(run.parent / "deny.txt"))
    model.score(tmp_path / "parts", **request.arguments())

    def scoring() -> Scoring:
        return scoring_of(model, request)

    scoring().check(tmp_path / "parts")
    pl.DataFrame({"user_id": [5, 8]}).write_parquet(users)
    with pytest.raises(RunError, match="is scored with another 'users'"):
        scoring().check(tmp_path / "parts")
    with pytest.raises(RunError, match="choose a shared disk"):
        scoring().check(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="all machines share"):
        scoring().finish(tmp_path / "elsewhere", 0)


def test_without_ray_the_extra_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = call("score", run, "--out", tmp_path / "parts", "--engine", "ray")
    assert refused.returncode == 2
    assert refused.stderr == "Error: Ray is not installed: pip install 'recsys-engine[ray]'\n"
    assert not (tmp_path / "parts").exists()
    # Nothing on one machine asks for it.
    assert call("score", run, "--out", tmp_path / "parts", "--part-users", 100).returncode == 0


def test_a_model_in_no_folder_is_refused(tmp_path: Path) -> None:
    options = {"epochs": 1, "batch_events": 512}
    model = Recommender("sasrec", encoder_options=SMALL, training_options=options)
    model.fit(random_log(users=10, items=8, seed=1))
    with pytest.raises(ArgumentError, match=r"save\(PATH\) it first"):
        score_with_ray(model, tmp_path / "parts", ScoringRequest())
