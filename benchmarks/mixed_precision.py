"""Mixed precision on a CPU with matrix tiles: training steps with `training.amp` on and off, taking turns.

    python -m recsys.benchmarks.mixed_precision --out benchmarks/results/mixed-precision-cpu.json

Both sides train the same encoder on the same batches with the same draws; what differs is the type in which
linear layers and the softmax over the catalog multiply. The log is made, with ML-1M's lengths and catalog.
One thread, and its processor time: other processes of the machine are not counted, though they take cache.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.steps import Steps, alternate_steps
from recsys.benchmarks.training import ENCODERS, made_store
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ArgumentError, RecsysError
from recsys.files import write_json
from recsys.kernels.shared.vector.tiles import tiles_available

SIDES = {"bfloat16": True, "float32": False}


def compare(name: str, store: SequenceStore, rounds: int) -> dict[str, Any]:
    """Time an encoder's steps on both sides."""
    sides = {side: Steps(name, store, amp=amp) for side, amp in SIDES.items()}
    return {"encoder": name, **alternate_steps(sides, rounds)}


def main() -> int:
    """Run, print, write; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--users", type=int, default=400, help="of the made log (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        if not tiles_available():
            raise ArgumentError("this processor has no matrix tiles (AMX): both sides would be the same")
        result: dict[str, Any] = {"benchmark": "mixed_precision", **stamp(), "encoders": []}
        store = made_store(users=options.users)
        for name in ENCODERS:
            entry = compare(name, store, options.rounds)
            result["encoders"].append(entry)
            rival = entry["rivals"]["float32"]
            print(
                f"{name:<9} {entry['ours_ms']['median']:.0f} ms a step, "
                f"float32 {rival['ms']['median']:.0f} ms: {rival['ratio']['median']:.2f} times",
                flush=True,
            )
        if options.out is not None:
            write_json(options.out, result)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
