"""The same bytes with a Ray cluster and without, whoever is killed, and what the cluster costs.

    python -m recsys.benchmarks.scale.engines --events 5000000

Makes a log in which most events share user and time with another, prepares it as a store of shards in one
process, by two workers of a Ray cluster of this machine, and once more with a worker killed in its work; then
scores everybody of a small run in one process, by two workers, with a worker killed, and with the caller
killed and called again. Folders are compared by the sha256 of every file in them. Memory is the proportional
set size of all processes of a call and of the largest among them, looked at ten times a second.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.processes import below, memory_of, title_of
from recsys.errors import RecsysError, RunError
from recsys.files import sha256_of, write_json

__all__ = ["compare"]

FILES = 10
LOOK_S = 0.1
ON_RAY = ("--engine", "ray", "--workers", "2")

When = Callable[[], bool]


def made_log(folder: Path, events: int, users: int, items: int, seed: int) -> float:
    """Write a shuffled log of Parquet files: log-normal users, Zipf items, few distinct times.

    Returns:
        The share of events that share user and time with another.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir()
    weight = rng.lognormal(0, 1.2, users)
    user = rng.choice(users, events, p=weight / weight.sum()) * 7_919
    item = np.minimum(rng.zipf(1.3, events), items)
    at = 1_600_000_000 + rng.integers(0, 20, events) * 86_400
    for number, rows in enumerate(np.array_split(np.arange(events), FILES)):
        frame = pl.DataFrame({"user_id": user[rows], "item_id": item[rows], "timestamp": at[rows]})
        frame.write_parquet(folder / f"{number}.parquet")
    _, counts = np.unique(user * 100 + (at - 1_600_000_000) // 86_400, return_counts=True)
    return float(counts[counts > 1].sum() / events)


def called(
    arguments: Sequence[object], *, kill: str | None = None, when: When | None = None
) -> dict[str, Any]:
    """Call `recsys` in a process of its own and look at it until it ends.

    Args:
        arguments: of the command.
        kill: kill a process below it with this in its name, once; "" kills the command itself.
        when: it is time for that.

    Raises:
        RunError: it failed, or nothing was killed that was to be.
    """
    command = [sys.executable, "-m", "recsys", *map(str, arguments)]
    began = time.monotonic()
    peak = largest = most = 0
    killed = False
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    looked = 0.0
    while process.poll() is None:
        pids = below(process.pid)
        if when is not None and not killed and when():
            named = [pid for pid in pids if kill in title_of(pid)] if kill else [process.pid]
            for pid in named[:1]:
                os.kill(pid, signal.SIGKILL)
                killed = True
        if time.monotonic() - looked > LOOK_S:
            sizes = [memory_of(pid) for pid in pids]
            peak, largest, most = max(peak, sum(sizes)), max(largest, *sizes), max(most, len(sizes))
            looked = time.monotonic()
        time.sleep(0.005)
    assert process.stderr is not None
    said = process.stderr.read().strip()
    if (when is not None) != killed or process.returncode != (-9 if kill == "" else 0):
        raise RunError(
            f"{' '.join(command[1:])}: exit code {process.returncode}, killed: {killed}: {said[-300:]}"
        )
    return {
        "wall_s": round(time.monotonic() - began, 1),
        "peak_mib": round(peak / 2**20),
        "largest_process_mib": round(largest / 2**20),
        "processes": most,
    }


def digest(folder: Path) -> dict[str, Any]:
    """Files of a folder, hidden ones as well, and one sha256 of all their names and bytes."""
    found = hashlib.sha256()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    for name in names:
        found.update(f"{name} {sha256_of(folder / name)}\n".encode())
    return {"files": len(names), "sha256": found.hexdigest()}


def prepared(folder: Path, log: Path, shards: int) -> dict[str, Any]:
    """A store of shards in one process, by workers, and with one killed while shards are sorted."""

    def sorting() -> bool:
        return len(list(folder.glob(".killed*/scratch/shard-*-sorted"))) >= 2

    def store(name: str, *options: object, **kill: Any) -> dict[str, Any]:
        out = folder / name
        told = called(["prepare", log, "--out", out, "--shards", shards, *options, "--quiet"], **kill)
        return told | digest(out)

    return {
        "one process": store("alone"),
        "two workers": store("workers", *ON_RAY),
        "two workers, one killed": store("killed", *ON_RAY, kill="ray::_do", when=sorting),
    }


def scored(folder: Path, run: Path, part_users: int) -> dict[str, Any]:
    """Parts in one process, by workers, with one killed, and with the caller killed and called again."""

    def some(name: str) -> When:
        return lambda: len(list((folder / name).glob("part-*"))) >= 3

    def parts(name: str, *options: object, **kill: Any) -> dict[str, Any]:
        out = folder / name
        told = called(["score", run, "--out", out, "--part-users", part_users, *options, "--quiet"], **kill)
        return told | digest(out)

    cut_short = parts("again", *ON_RAY, kill="", when=some("again"))
    return {
        "one process": parts("alone"),
        "two workers": parts("workers", *ON_RAY),
        "two workers, one killed": parts("killed", *ON_RAY, kill="ray::_PartWriter", when=some("killed")),
        "caller killed, called again": parts("again", *ON_RAY) | {"parts_before": cut_short["files"] - 1},
    }


def compare(events: int, shards: int, seed: int = 0) -> dict[str, Any]:
    """All of it, in a temporary folder.

    Args:
        events: of the log that is prepared.
        shards: of the store.
        seed: of the log.

    Returns:
        The record; ``same`` says of each command whether all its folders are equal.

    Raises:
        RunError: a call failed.
    """
    with tempfile.TemporaryDirectory(prefix="recsys-scale-") as name:
        folder = Path(name)
        tied = made_log(folder / "log", events, max(100, events // 25), max(100, events // 100), seed)
        made_log(folder / "small", 60_000, 4_000, 500, seed)
        called(["train", folder / "small", "--out", folder / "run", "--set", "training.epochs=1", "--quiet"])
        (folder / "stores").mkdir()
        (folder / "parts").mkdir()
        found = {
            "prepare": prepared(folder / "stores", folder / "log", shards),
            "score": scored(folder / "parts", folder / "run", 100),
        }
    same = {name: len({case["sha256"] for case in cases.values()}) == 1 for name, cases in found.items()}
    log = {"events": events, "tied_share": round(tied, 3), "shards": shards, "seed": seed}
    return {"benchmark": "engines", **stamp(), "log": log, **found, "same": same}


def main() -> int:
    """Run, print, record; 1 if a folder differs."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.scale.engines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=5_000_000, help="of the log (default: %(default)s)")
    parser.add_argument("--shards", type=int, default=16, help="of the store (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the log (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "scale" / "engines.json", help="record to write"
    )
    options = parser.parse_args()
    try:
        found = compare(options.events, options.shards, options.seed)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    write_json(options.out, found)
    for command in ("prepare", "score"):
        for name, case in found[command].items():
            print(
                f"{command}, {name}: {case['wall_s']:g} s, {case['peak_mib']:,} MiB, "
                f"{case['largest_process_mib']:,} the largest process, {case['files']} files "
                f"{case['sha256'][:12]}"
            )
    return 0 if all(found["same"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
