"""Does a training over two processes that is killed come to the same bits? SIGKILL of either, ten times.

    python -m recsys.benchmarks.scale.kills ml-100k --rounds 10 --json benchmarks/results/scale/kills.json

The weights of ``recsys train`` without a launcher are what every round must come to. A round starts the same
command on two processes under torchrun and kills one of them at a moment by chance. In the rounds 0, 2, ...
torchrun starts them again (``--max-restarts 1``); in the others the command is given again with ``--resume``,
in the rounds 3, 7, ... on one process alone. ``--set`` adds settings or takes the place of those here.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.scale.launching import run, start, torchrun, workers
from recsys.errors import RunError
from recsys.files import sha256_of, write_json

__all__ = ["kills"]

SETTINGS = (
    "encoder.d_model=32",
    "encoder.n_layers=1",
    "training.loss=full",
    "training.accumulate=2",
    "training.batch_events=2048",
    "training.ema_decay=0.99",
)


def command(data: str, out: Path, settings: Sequence[str]) -> list[str]:
    """Arguments of Python for the training of every round."""
    settings = [word for setting in settings for word in ("--set", setting)]
    return ["-m", "recsys", "train", data, "--out", str(out), "--device", "cpu", "--quiet", *settings]


def kills(
    data: str, rounds: int, epochs: int, folder: Path, seed: int = 0, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Kill so often, and compare.

    Args:
        data: a known log, a file or a prepared folder.
        rounds: kills.
        epochs: of each training.
        folder: to work in.
        seed: of the moments.
        more: settings that are added to `SETTINGS`, or take the place of some.

    Returns:
        The sha256 of the weights without a launcher; each round's process, mode, where training stood at the
        kill, and whether it came to the same weights.
    """
    rng = np.random.default_rng(seed)
    alone = folder / "alone"
    named = {entry.partition("=")[0]: entry for entry in (*SETTINGS, f"training.epochs={epochs}", *more)}
    settings = list(named.values())
    run([sys.executable, *command(data, alone, settings)])
    wanted = sha256_of(alone / "model.safetensors")
    records = [
        json.loads(line) for line in (alone / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    seconds = sum(record["seconds"] + record["validation_seconds"] for record in records)
    print(f"one process: {wanted[:16]} in {seconds:.1f} s of training", flush=True)
    found: list[dict[str, Any]] = []
    while len(found) < rounds:
        number, out = len(found), folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        facts = _round(data, settings, out, number, float(rng.uniform(0, seconds)))
        if facts is None:
            print("the training had ended before the kill; once more", flush=True)
            continue
        facts["same"] = sha256_of(out / "model.safetensors") == wanted
        found.append(facts)
        print(f"round {number}: {facts}", flush=True)
    same = sum(facts["same"] for facts in found)
    return {"sha256": wanted, "settings": settings, "epochs": epochs, "rounds": found, "same": same}


def _round(data: str, settings: Sequence[str], out: Path, number: int, wait: float) -> dict[str, Any] | None:
    """One kill and what follows; None where training had ended before it."""
    rank, restarts = number // 2 % 2, number % 2 == 0
    options = ("--standalone", "--max-restarts", str(int(restarts)))
    training = start([*torchrun(2, *options), *command(data, out, settings)])
    state = out / "checkpoint" / "state.json"
    while not state.exists() and training.poll() is None:
        time.sleep(0.05)
    time.sleep(wait)
    alive = workers(training.pid)
    if len(alive) < 2 or (out / "run.json").exists():
        training.communicate()
        return None
    progress = json.loads(state.read_text(encoding="utf-8"))["progress"]
    os.kill(alive[rank], signal.SIGKILL)
    _, said = training.communicate()
    mode = "torchrun starts again"
    if restarts and training.returncode:
        raise RunError(f"torchrun did not start the training again: {said[-2000:]}")
    if not restarts:
        if training.returncode == 0:
            raise RunError("torchrun ended well though a process was killed")
        size = 1 if number % 4 == 3 else 2
        mode = f"--resume on {size}"
        launcher = [sys.executable] if size == 1 else torchrun(2)
        run([*launcher, *command(data, out, settings), "--resume"])
    return {"killed": rank, "mode": mode, "seconds": round(wait, 2), "checkpoint_of_epoch": progress["epoch"]}


def main() -> int:
    """Run and print; write JSON if asked; 1 where a round came to other weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = kills(arguments.data, arguments.rounds, arguments.epochs, Path(folder), more=arguments.set)
    print(f"{found['same']} of {arguments.rounds} rounds came to the same bits")
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), **found})
    return int(found["same"] < arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
