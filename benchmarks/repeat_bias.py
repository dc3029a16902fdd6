"""What the repeat bias costs: steps with none, by the last occurrence, by all and by the clock, in turn.

    python -m recsys.benchmarks.repeat_bias --out benchmarks/results/repeat-bias-cpu.json

All sides train the same encoder on the same batches, by its default preset otherwise. The log is made, with
ML-1M's lengths and catalog, events of a user up to a day apart and no item twice nearby, so that every event
of a window is an item of its own: the most there is to do. One thread, and its processor time: other
processes of the machine are not counted, though they take cache.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.steps import Steps, alternate_steps
from recsys.benchmarks.training import ENCODERS, made_store
from recsys.datasets.prepared.store import SequenceStore
from recsys.files import write_json

SIDES: dict[str, dict[str, Any]] = {
    "last": {"repeat_bias": 8},
    "none": {"repeat_bias": 0},
    "count": {"repeat_bias": 8, "repeat_by": "count"},
    "clock": {"repeat_bias": 8, "repeat_by": "clock"},
}
"""The first, the default preset's, is what the others are divided by."""


def local_store(users: int) -> SequenceStore:
    """The made log of users whose clocks show UTC."""
    made = made_store(users=users)
    assert made.timestamps is not None
    arrays: dict[str, Any] = {
        "items": made.items,
        "timestamps": made.timestamps,
        "offsets": made.offsets,
        "valid_start": made.valid_start,
        "test_start": made.test_start,
        "utc_offsets": np.zeros(len(made.items), dtype=np.int32),
    }
    return SequenceStore(made.path, made.meta, arrays)


def compare(name: str, store: SequenceStore, rounds: int, window: int) -> dict[str, Any]:
    """Time an encoder's steps on all sides."""
    sides = {
        side: Steps(name, store, encoder={"max_length": window, **options}) for side, options in SIDES.items()
    }
    return {"encoder": name, **alternate_steps(sides, rounds)}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--users", type=int, default=400, help="of the made log (default: %(default)s)")
    parser.add_argument("--window", type=int, default=200, help="events (default: %(default)s)")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="with commas between")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "benchmark": "repeat_bias",
        **stamp(),
        "window": options.window,
        "encoders": [],
    }
    store = local_store(options.users)
    for name in options.encoders.split(","):
        entry = compare(name, store, options.rounds, options.window)
        result["encoders"].append(entry)
        ratios = (f"{side} {rival['ratio']['median']:.3f}" for side, rival in entry["rivals"].items())
        print(
            f"{name:<9} {entry['ours_ms']['median']:.0f} ms a step, times it: {', '.join(ratios)}", flush=True
        )
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
