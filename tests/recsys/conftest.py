"""Small prepared datasets that the engine's tests share."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepare import prepare
from recsys.datasets.store import SequenceStore


def random_log(*, users: int, items: int, seed: int, longest: int = 40) -> pl.DataFrame:
    """Events of a random walk over items, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    user, item, time = [], [], []
    for u in range(users):
        place = int(rng.integers(items))
        for t in range(int(rng.integers(3, longest))):
            user.append(u)
            item.append(place)
            time.append(1_000_000_000 + 3600 * t)
            place = (place + int(rng.integers(1, 4))) % items
    return pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time})


@pytest.fixture(scope="session")
def log() -> pl.DataFrame:
    return random_log(users=60, items=30, seed=5)


@pytest.fixture(scope="session")
def store(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    return prepare(log, Path(tmp_path_factory.mktemp("prepared")) / "data")
