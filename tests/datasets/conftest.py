"""A small log and its prepared form, shared by the tests of the store."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare

START_S = 1_000_000_000


def make_log(*, users: int = 12, items: int = 9, seed: int = 3) -> pl.DataFrame:
    """Random events in random order, with ties of time; user ids are numbers, item ids text."""
    rng = np.random.default_rng(seed)
    n = users * 8
    return pl.DataFrame(
        {
            "user_id": rng.integers(0, users, n) * 7 + 100,
            "item_id": [f"item-{value:03d}" for value in rng.integers(0, items, n)],
            "timestamp": START_S + rng.integers(0, 20, n) * 3_600,
        }
    )


@pytest.fixture
def log() -> pl.DataFrame:
    return make_log()


@pytest.fixture
def store(log: pl.DataFrame, tmp_path: Path) -> SequenceStore:
    return prepare(log, tmp_path / "prepared")
