"""Time of a training step by loss, taking turns: full softmax, sampled softmax, gBCE.

    python -m recsys.benchmarks.losses --out benchmarks/results/losses-cpu.json

SASRec on a made log with ML-1M's lengths and 3,416 items, or as many as asked for; the negatives are those
of the recipes `ml-1m-sasrec-order/loss-*`: 2,048 shared for the softmax, 256 for each target for gBCE. One
thread, and its processor time. What the losses are worth: benchmarks/README.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.steps import Steps, alternate_steps
from recsys.benchmarks.training import made_store
from recsys.errors import RecsysError
from recsys.files import write_json

LOSSES = ("full", "sampled_softmax", "gbce")


def compare(items: int, rounds: int, users: int) -> dict[str, Any]:
    """Time steps of one catalog size with each loss; the full softmax is the one that ratios refer to."""
    store = made_store(users=users, items=items)
    sides = {loss: Steps("sasrec", store, loss=loss, label_smoothing=0.0) for loss in LOSSES}
    return {"items": items, **alternate_steps(sides, rounds)}


def main() -> int:
    """Run, print, write; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[3_416, 50_000])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--users", type=int, default=400, help="of the made log (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        result: dict[str, Any] = {"benchmark": "losses", **stamp(), "catalogs": []}
        for items in options.items:
            entry = compare(items, options.rounds, options.users)
            result["catalogs"].append(entry)
            rivals = ", ".join(
                f"{name} {found['ms']['median']:.0f} ms ({found['ratio']['median']:.2f} times)"
                for name, found in entry["rivals"].items()
            )
            print(f"{items:,} items: full {entry['ours_ms']['median']:.0f} ms a step, {rivals}", flush=True)
        if options.out is not None:
            write_json(options.out, result)
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
