"""A log from CSV to the prepared store."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import Sizes
from recsys.datasets.preparing.prepare import prepare


@pytest.fixture
def log(sizes: Sizes, tmp_path: Path) -> Path:
    import polars as pl

    rng = np.random.default_rng(0)
    rows = sizes.log_rows
    frame: Any = {
        "user_id": rng.integers(0, max(5, rows // 100), rows),
        "item_id": (rng.random(rows) ** 2 * max(10, rows // 50)).astype(np.int64),
        "timestamp": 1_700_000_000 + rng.permutation(rows),
    }
    pl.DataFrame(frame).write_csv(tmp_path / "log.csv")
    return tmp_path / "log.csv"


def test_prepare(log: Path, sizes: Sizes, tmp_path: Path, meter: Meter) -> None:
    number = itertools.count()
    made = meter(
        lambda: prepare(log, tmp_path / f"data-{next(number)}"),
        group=f"prepare, CSV of {sizes.log_rows:,} rows",
        events=sizes.log_rows,
        bytes_moved=log.stat().st_size,
    )
    assert made.n_events == sizes.log_rows
