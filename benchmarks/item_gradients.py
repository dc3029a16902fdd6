"""Gradient of the item table: ids sorted and rows summed in order, against torch's embedding backward.

    python -m recsys.benchmarks.item_gradients --json benchmarks/results/item-gradients.json

32,768 events with Zipf ids, d = 64. Ours gives the touched rows, which is what a sampled loss needs; "ours,
dense" lays them out over the whole table like torch's.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.benchmarks.alternating import alternate, lines
from recsys.benchmarks.machine import stamp
from recsys.files import write_json


def compare(n_items: int, events: int, width: int, rounds: int) -> dict[str, Any]:
    """Time both sides on one table; refuses to go on if they do not agree bit for bit."""
    from recsys.kernels.embedding.cpu_segments import segment_sum, sort_ids
    from recsys.kernels.embedding.gather import lay_out

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, n_items + 1)
    ids = torch.from_numpy(rng.choice(n_items, events, p=share / share.sum()))
    rows = torch.from_numpy(rng.standard_normal((events, width), dtype=np.float32))
    table = torch.empty(n_items, width)

    def ours() -> torch.Tensor:
        segments = sort_ids(ids, n_items)
        return lay_out(table, torch.from_numpy(segments.ids), segment_sum(segments, rows), True)

    def dense() -> torch.Tensor:
        segments = sort_ids(ids, n_items)
        return lay_out(table, torch.from_numpy(segments.ids), segment_sum(segments, rows), False)

    def theirs() -> torch.Tensor:
        gradients: torch.Tensor = torch.ops.aten.embedding_dense_backward(rows, ids, n_items, -1, False)
        return gradients

    if torch.get_num_threads() == 1:
        assert torch.equal(ours().to_dense(), theirs())
    torch.testing.assert_close(ours().to_dense(), theirs(), rtol=1e-4, atol=1e-4)
    sides = {"ours": ours, "ours, dense": dense, "embedding_dense_backward": theirs}
    result = alternate(sides, base="ours", rounds=rounds)
    return {"items": n_items, "events": events, "d": width, "distinct": len(ids.unique()), "sides": result}


def main() -> None:
    """Run and print; write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[1_000_000, 10_000])
    parser.add_argument("--events", type=int, default=32_768)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = []
    for n_items in arguments.items:
        cases.append(compare(n_items, arguments.events, arguments.width, arguments.rounds))
        title = f"{n_items:,} items, {arguments.events:,} events, {cases[-1]['distinct']:,} distinct"
        print("\n".join(lines(title, cases[-1]["sides"])), flush=True)
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), "cases": cases})


if __name__ == "__main__":
    main()
