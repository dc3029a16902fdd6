"""What one process pays for what several need: training steps of two commits, in turn.

    git worktree add /tmp/before COMMIT
    python -m recsys.benchmarks.scale.one_process /tmp/before . --json results/scale/one-process.json

Each round is a process for each side, which trains a small case twice and tells the processor time of the
second time; sides take turns in going first. The ratio is of medians. On a machine that others use these
scatter by more than the difference, so the Python that a step has got more is timed by itself, too.
"""

import argparse
import json
import statistics
import sys
import timeit
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.scale.launching import run
from recsys.files import write_json
from recsys.training.checkpoint import Progress
from recsys.training.loss_sums import LossSums
from recsys.training.processes import ALONE
from recsys.training.trainer import Trainer

CASES = {"sasrec, full": ("sasrec", "full"), "sasrec, sampled": ("sasrec", "sampled_softmax")}

STEPS = """
import json, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.training.config import TrainingConfig
from recsys.training.trainer import Trainer
torch.set_num_threads(1)
rng = np.random.default_rng(0)
users = np.repeat(np.arange(400), rng.integers(20, 60, 400))
log = {"user_id": users, "item_id": rng.integers(0, 2000, len(users)), "timestamp": np.arange(len(users))}
with tempfile.TemporaryDirectory() as folder:
    store = prepare(log, Path(folder) / "data")
    for _ in range(2):
        settings = encoder_config(sys.argv[1], {"d_model": 32, "n_layers": 1, "max_length": 50})
        encoder = build_encoder(sys.argv[1], store.n_items, settings)
        config = TrainingConfig(amp=False, epochs=2, batch_events=256, loss=sys.argv[2], negatives=128)
        trainer = Trainer(encoder, store, config)
        began = time.process_time()
        steps = trainer.run().global_step
        seconds = time.process_time() - began
print(json.dumps({"seconds": seconds, "steps": steps}))
"""
"""A training of many small steps: what a step costs beside its sums shows most."""


def added_microseconds() -> dict[str, float]:
    """What one step spends on counting targets and keeping losses, now and before; the least of five."""
    group: Any = [SimpleNamespace(task=SimpleNamespace(n_targets=200))]
    trainer: Any = SimpleNamespace(_processes=ALONE)
    loss = torch.tensor(1.0)

    def now() -> None:
        n_targets, _ = Trainer._in_all(trainer, group, 1, 0.0)
        sums = LossSums(ALONE)
        sums.add([loss], n_targets)
        sums.collect(Progress(), 1.0)

    def before() -> None:
        pending, progress = [(loss, group[0].task.n_targets)], Progress()
        for one, n_targets in pending:
            progress.loss_sum += float(one) * n_targets
            progress.n_targets += n_targets

    number = 10_000
    return {
        each.__name__: 1e6 * min(timeit.repeat(each, number=number, repeat=5)) / number
        for each in (now, before)
    }


def measure(trees: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Processor milliseconds of a step by case and side, and the ratio of medians."""
    found: dict[str, Any] = {}
    for name, (encoder, loss) in CASES.items():
        times: dict[str, list[float]] = {side: [] for side in trees}
        for number in range(rounds):
            for side in sorted(trees, reverse=bool(number % 2)):
                out = run([sys.executable, "-c", STEPS, encoder, loss], PYTHONPATH=str(trees[side]))
                told = json.loads(out)
                times[side].append(1000 * told["seconds"] / told["steps"])
        medians = {side: statistics.median(values) for side, values in times.items()}
        found[name] = {
            "ms": times,
            "median": medians,
            "ratio": medians["after"] / medians["before"],
            "ratio_of_least": min(times["after"]) / min(times["before"]),
        }
        print(f"{name}: {medians}, ratio {found[name]['ratio']:.3f}", flush=True)
    return found


def main() -> None:
    """Run and print; write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    added = added_microseconds()
    print(f"of a step, microseconds: {added}", flush=True)
    found = measure(trees, arguments.rounds)
    if arguments.json is not None:
        commits = {
            side: run(["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]).strip()
            for side, tree in trees.items()
        }
        write_json(arguments.json, {**stamp(), "commits": commits, "microseconds": added, "cases": found})


if __name__ == "__main__":
    main()
