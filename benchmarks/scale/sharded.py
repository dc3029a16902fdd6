"""An item table in rows over processes: the bits of one process, the bytes of a step, and the memory.

    python -m recsys.benchmarks.scale.sharded --json benchmarks/results/scale/sharded.json

Small trainings of three encoders with sampled losses on 1, 2 and 3 processes have to come to the same sha256
of all weights and the same losses and metrics, and with the full softmax to the same losses but for rounding.
Then two processes take one step on the same batch of a catalog of 10^5 and one of 10^7 items: what each sends
may not depend on the catalog, and what each holds is its half. Ends with 1 where one of it is not so.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.scale.cases import CASES, Case, made_store, train
from recsys.benchmarks.scale.launching import run, torchrun
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.items import making_rows
from recsys.files import write_json
from recsys.jagged import SequenceBatch
from recsys.training.config import TrainingConfig
from recsys.training.losses import Negatives, TrainingLoss
from recsys.training.optimizer import make_optimizer
from recsys.training.process_group import ProcessGroup
from recsys.training.processes import joined
from recsys.training.sharded_items import ShardedItems

SAMPLED: dict[str, Case] = {
    "sasrec, sampled_softmax": CASES["sasrec, sampled_softmax, table"],
    "bert4rec, sampled_softmax": CASES["bert4rec, sampled_softmax, table"],
    "mamba, gbce": ("mamba", {}, "gbce"),
}
FULL: dict[str, Case] = {f"{name}, full": CASES[f"{name}, full, table"] for name in ("sasrec", "bert4rec")}
SIZES, ACCUMULATE = (1, 2, 3), 6

CATALOGS = (100_000, 10_000_000)
WIDTH, EVENTS, NEGATIVES = 16, 4096, 2048
MOST_SENT = 1.1
"""Times (8 + 8 d) bytes for each row that a batch touches."""
CLOSE = 1e-6
"""Relative difference of losses of the full softmax between numbers of processes."""


class Counting:
    """A process that counts the bytes it hands over for all processes, itself among them."""

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def exchange(self, parts: Sequence[Tensor], lengths: Sequence[int] | None = None) -> list[Tensor]:
        """As the group's."""
        self.sent += sum(part.numel() * part.element_size() for part in parts)
        return self._group.exchange(parts, lengths)


def take_step(n_items: int, counting: Counting) -> dict[str, Any]:
    """One step on a batch of the first 100,000 items; bytes sent and held by this process."""
    options = {"d_model": WIDTH, "n_layers": 1, "n_heads": 1, "max_length": 64}
    with making_rows(counting.rank, counting.size):
        encoder = build_encoder("sasrec", n_items, encoder_config("sasrec", options))
    config = TrainingConfig(loss="sampled_softmax", negatives=NEGATIVES)
    loss = TrainingLoss(encoder, None, config)
    sharded = ShardedItems(encoder, counting, None)  # type: ignore[arg-type]
    sharded.table.sparse = True
    optimizer = make_optimizer(encoder, config)
    rng = np.random.default_rng([1, counting.rank])
    # As in a log, some items come often.
    items, targets, negatives = (
        torch.from_numpy((CATALOGS[0] * rng.random(n) ** 3).astype(np.int64))
        for n in (EVENTS, EVENTS, NEGATIVES)
    )
    batch = SequenceBatch.from_lengths(items.numpy(), np.full(EVENTS // 64, 64, dtype=np.int64))
    drawn = Negatives(negatives, torch.zeros(NEGATIVES))
    scored = loss.scored(targets, drawn)
    with encoder.items_held(batch.items, scored):
        mean = loss(encoder(batch), targets, drawn)
    mean.backward()
    sharded.give_back()
    sharded.give()
    optimizer.step()
    rows = len(torch.cat((items, targets, negatives)).unique())
    weight = sharded.weight
    held = [weight, optimizer.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg_sq"]]
    return {
        "rows_touched": rows,
        "bytes_sent": counting.sent,
        "of_allowed": counting.sent / ((8 + 8 * WIDTH) * rows),
        "bytes_held": sum(t.numel() * t.element_size() for t in held),
        "bytes_of_whole": 3 * 4 * WIDTH * n_items,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def worker(out: str, work: str) -> None:
    """What each process does: train all cases, or take the step on a catalog of so many items."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with joined(torch.device("cpu")) as processes, tempfile.TemporaryDirectory() as folder:
        if work != "bits":
            assert isinstance(processes, ProcessGroup)
            found = take_step(int(work), Counting(processes))
        else:
            store = made_store(Path(folder) / "data")
            for name, case in {**SAMPLED, **FULL}.items():
                _, found[name] = train(case, store, processes, accumulate=ACCUMULATE, shard_items=True)
    Path(f"{out}-{processes.rank}").write_text(json.dumps(found), encoding="utf-8")


def together(size: int, work: str, folder: Path) -> list[dict[str, Any]]:
    """What so many processes came to, by rank."""
    out = folder / f"{size}-{work}"
    launcher = [sys.executable] if size == 1 else torchrun(size)
    run([*launcher, "-m", "recsys.benchmarks.scale.sharded", "--work", str(out), work])
    return [json.loads(Path(f"{out}-{rank}").read_text(encoding="utf-8")) for rank in range(size)]


def measure_bits(folder: Path) -> dict[str, Any]:
    """Each case on each number of processes; the sha256 is that of process 0, which has the whole table."""
    told = {size: together(size, "bits", folder) for size in SIZES}
    found: dict[str, Any] = {}
    for name in (*SAMPLED, *FULL):
        (alone,) = (one[name] for one in told[1])
        every = [(size, rank, one[name]) for size in SIZES for rank, one in enumerate(told[size])]
        if name in SAMPLED:
            numbers = ("losses", "ndcg@10", "steps")
            same = all(one["sha256"] == alone["sha256"] for _, rank, one in every if rank == 0)
            same &= all(one[key] == alone[key] for _, _, one in every for key in numbers)
            found[name] = {**alone, "processes": SIZES, "same": same}
            continue
        off = max(
            abs(here / there - 1)
            for _, _, one in every
            for here, there in zip(one["losses"], alone["losses"], strict=True)
        )
        found[name] = {"losses": alone["losses"], "processes": SIZES, "off": off, "same": off <= CLOSE}
    return found


def measure_bytes(folder: Path) -> dict[str, Any]:
    """The step on two processes, by the size of the catalog."""
    by_catalog = {str(n): together(2, str(n), folder) for n in CATALOGS}
    small, large = by_catalog.values()
    return {
        "width": WIDTH,
        "by_catalog": by_catalog,
        "large_over_small": [b["bytes_sent"] / a["bytes_sent"] for a, b in zip(small, large, strict=True)],
        "share_held": max(one["bytes_held"] / one["bytes_of_whole"] for one in (*small, *large)),
        "of_allowed": max(one["of_allowed"] for one in (*small, *large)),
    }


def main() -> int:
    """Run and print; write JSON if asked; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs=2, metavar=("OUT", "WHAT"), help="be one of the processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.work:
        worker(*arguments.work)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bits = measure_bits(Path(folder))
        for name, facts in bits.items():
            told = facts["sha256"][:16] if "sha256" in facts else f"off by {facts['off']:.1e}"
            print(f"{name}: {told}, {'same' if facts['same'] else 'DIFFERENT'}", flush=True)
        moved = measure_bytes(Path(folder))
    print(json.dumps(moved, indent=1))
    kept = all(facts["same"] for facts in bits.values())
    kept &= all(math.isclose(ratio, 1, abs_tol=0.01) for ratio in moved["large_over_small"])
    kept &= moved["of_allowed"] <= MOST_SENT and moved["share_held"] <= 0.51
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), "kept": kept, "bits": bits, "bytes": moved})
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
