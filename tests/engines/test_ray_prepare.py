"""`recsys prepare --shards N --engine ray`: the same bytes, also where a worker is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.preparing.prepare import prepare
from recsys.engines.ray_workers import MOST_LOST
from tests.command_line import call, start
from tests.engines.cluster import TestCluster

SHARDS = 24


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Random order, most events tied, in a folder of Parquet parts."""
    rng = np.random.default_rng(8)
    folder = tmp_path / "log"
    folder.mkdir()
    for part in range(3):
        n = 4_000
        columns = {
            "user_id": rng.integers(0, 600, n),
            "item_id": np.minimum(rng.geometric(0.02, n), 300),
            "timestamp": 1_000_000_000 + rng.integers(0, 5, n) * 3_600,
        }
        pl.DataFrame(columns).write_parquet(folder / f"{part}.parquet")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}  # fmt: skip


def test_a_store_is_the_same_though_a_worker_is_killed(log: Path, ray: TestCluster, tmp_path: Path) -> None:
    prepare(log, tmp_path / "here", shards=SHARDS, min_events=3)
    out = tmp_path / "there"
    killed: list[int] = []

    def kill_a_worker() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not killed:
            if len(list(tmp_path.glob(".there*/scratch/shard-*-sorted"))) > 3:
                for worker in ray.workers("_do")[:1]:
                    os.kill(worker, signal.SIGKILL)
                    killed.append(worker)
            time.sleep(0.002)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    options = ["--shards", SHARDS, "--min-events", 3, "--engine", "ray", "--address", ray.address]
    process = start("prepare", log, "--out", out, *options, "--workers", 2, "--json")
    answered, said = process.communicate()
    killer.join()
    assert process.returncode == 0, said
    assert len(killed) == 1
    assert json.loads(answered)["counts"]["events"] > 0
    assert files(out) == files(tmp_path / "here")
    assert sorted(path.name for path in out.iterdir()) == sorted(
        path.name for path in (tmp_path / "here").iterdir()
    )


ON_RAY = r"""
import os, sys
from pathlib import Path
from recsys.engines.ray_prepare import _OnRay
from recsys.errors import DataError, RunError

def once(path, number):
    if number == 2 and not path.exists():
        path.touch()
        os._exit(9)
    return number * 10

def refuse(number):
    raise DataError(f"column {number} is bad")

def end(number):
    os._exit(9)

def threads():
    import polars as pl
    return pl.thread_pool_size()

shown = []
with _OnRay(sys.argv[1], 2) as each:
    shown.append(list(each(once, [(Path(sys.argv[2]), number) for number in range(5)])))
    for function in (refuse, end):
        try:
            list(each(function, [(3,)]))
        except (DataError, RunError) as error:
            shown.append(f"{type(error).__name__}: {error}".partition(" (")[0])
    shown.append(list(each(threads, [()])))
print(*shown, sep="\n")
"""


def test_work_comes_in_order_and_are_done_again(ray: TestCluster, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ON_RAY, ray.address, str(tmp_path / "died")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines() == [
        "[0, 10, 20, 30, 40]",
        "DataError: column 3 is bad",
        f"RunError: a piece of the preparation ended its worker, {MOST_LOST} times",
        "[1]",
    ], done.stderr
    assert (tmp_path / "died").exists()


def test_shards_are_asked_for(log: Path, tmp_path: Path) -> None:
    refused = call("prepare", log, "--out", tmp_path / "out", "--engine", "ray")
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: --engine ray prepares a store of shards: pass --shards")


def test_without_ray_the_extra_is_named(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    refused = call("prepare", log, "--out", tmp_path / "out", "--shards", 4, "--engine", "ray")
    assert refused.returncode == 2
    assert refused.stderr == "Error: Ray is not installed: pip install 'recsys-engine[ray]'\n"
    assert not (tmp_path / "out").exists()
    assert call("prepare", log, "--out", tmp_path / "out", "--shards", 4).returncode == 0
