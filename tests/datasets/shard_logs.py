"""Logs with many ties, and stores of shards of them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.preparing.prepare import prepare

START_S = 1_000_000_000


def tied_log(*, users: int = 60, items: int = 25, seed: int = 5, text: bool = False) -> pl.DataFrame:
    """Random events in random order; most share their user and time with another."""
    rng = np.random.default_rng(seed)
    n = users * 12
    numbers = rng.integers(0, users, n) * 7 - 100
    return pl.DataFrame(
        {
            "user_id": [f"usér-{number}-{'x' * (number % 11)}" for number in numbers] if text else numbers,
            "item_id": [f"item-{value:03d}" for value in np.minimum(rng.geometric(0.15, n), items)],
            "timestamp": START_S + rng.integers(0, 4, n) * 3_600,
            "part": "train",
            "zone": np.array(["UTC", "+05:30", "America/New_York"])[numbers % 3],
        }
    )


def sharded_store(log: Any, out: Path, shards: int = 4, **options: Any) -> ShardedStore:
    store = prepare(log, out, shards=shards, **options)
    assert isinstance(store, ShardedStore)
    return store
