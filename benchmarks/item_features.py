"""What features of items cost: training steps with them and without, in turn, and memory at a million items.

    python -m recsys.benchmarks.item_features --data DATA [--data DATA] [--items 1000000] --json FILE

DATA is a prepared folder with tags or vectors. `--items` times a made catalog of so many items with 5 tags
each of 10,000 and vectors of 256 under the sampled softmax, and measures the peak of resident memory over
what the process held before the step, which are tables, moments and features. Times are processor times of
one thread.
"""

import argparse
import ctypes
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.benchmarks.catalog_memory import measure
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.steps import SAME, Steps, alternate_steps
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.writer import write_dataset
from recsys.files import write_json

__all__ = ["made_store", "step_times"]

PARTS = ("id", "id+features")
TAGS, EACH, WIDTH, USERS, LENGTH = 10_000, 5, 256, 2_000, 50


def step_times(store: SequenceStore, rounds: int, **training: Any) -> dict[str, Any]:
    """Steps of SASRec with and without features, in turn; "id" is the first side."""
    sides = {
        parts: Steps("sasrec", store, encoder={**SAME, "item_parts": parts}, **training) for parts in PARTS
    }
    return alternate_steps(sides, rounds)


def made_store(folder: Path, n_items: int) -> SequenceStore:
    """A prepared dataset of so many items with tags and vectors, whose users walk at random."""
    import polars as pl

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    events = USERS * LENGTH
    offsets = np.arange(USERS + 1, dtype=np.int64) * LENGTH
    names = [f"tag-{number:05}" for number in range(TAGS)]
    vectors = np.empty((n_items, WIDTH), dtype=np.float16)
    for first in range(0, n_items, 65_536):
        block = vectors[first : first + 65_536]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "items": rng.integers(0, n_items, events, dtype=np.int32),
        "offsets": offsets,
        "valid_start": offsets[1:] - 2,
        "test_start": offsets[1:] - 1,
        "item_tags": (TAGS ** rng.random(n_items * EACH)).astype(np.int32).clip(0, TAGS - 1),
        "item_tag_offsets": np.arange(n_items + 1, dtype=np.int64) * EACH,
        "item_tag_weights": np.full(n_items * EACH, EACH**-0.5, dtype=np.float32),
        "item_vectors": vectors,
    }
    # Every item trains, or the loss would be over the few that do.
    counts = {"users": USERS, "items": n_items, "events": events, "tags": TAGS}
    write_dataset(
        folder,
        arrays=arrays,
        users=pl.Series("user_id", np.arange(USERS)),
        items=pl.DataFrame({"item_id": np.arange(n_items)}),
        meta={"name": "made", "counts": counts, "options": {}},
        tags=pl.DataFrame({"column": ["made"] * TAGS, "name": names, "count": [0] * TAGS}),
    )
    store = SequenceStore.open(folder, verify=False)
    store.__dict__["_item_counts"] = np.ones(n_items, dtype=np.int64)
    return store


def peaks(store: SequenceStore) -> dict[str, dict[str, float]]:
    """Memory of one step after two others, by parts."""
    found = {}
    for parts in PARTS:
        step = Steps("sasrec", store, encoder={**SAME, "item_parts": parts}, loss="sampled_softmax")
        step()
        step()
        ctypes.CDLL(None).malloc_trim(0)  # or what the last step freed would be held still
        found[parts] = measure(step)
    return found


def main() -> None:
    """Time, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", action="append", default=[], help="prepared folder with features")
    parser.add_argument("--items", type=int, default=0, help="of a made catalog; 0 for none")
    parser.add_argument("--rounds", type=int, default=11, help="of steps in turn (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": stamp(), "logs": {}}
    for place in options.data:
        store = SequenceStore.open(place)
        result["logs"][store.name] = step_times(store, options.rounds, loss="full")
        print(store.name, json.dumps(result["logs"][store.name]), flush=True)
    if options.items:
        with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
            store = made_store(Path(scratch) / "data", options.items)
            result["made"] = {
                "items": options.items,
                **step_times(store, options.rounds, loss="sampled_softmax"),
                "memory": peaks(store),
            }
            print("made", json.dumps(result["made"]), flush=True)
    if options.json is not None:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
