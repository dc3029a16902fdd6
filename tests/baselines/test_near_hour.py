"""Counts near the hour, worked out by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys import prepare
from recsys.baselines.near_hour import NearHourConfig
from recsys.baselines.registry import fit_baseline
from recsys.errors import ConfigError
from recsys.evaluation.targets import select_targets

DAY = 86_400
NIGHT = 1_600_041_600  # 2020-09-14, midnight UTC


def _log() -> pl.DataFrame:
    """One user: tea at 8 of four mornings, wine at 20 of the four evenings; asked at 8 of the fifth day."""
    times, items = [], []
    for day in range(4):
        times += [NIGHT + day * DAY + 8 * 3600, NIGHT + day * DAY + 20 * 3600]
        items += ["tea", "wine"]
    times += [NIGHT + 4 * DAY + 8 * 3600]
    items += ["tea"]
    return pl.DataFrame({"user_id": [1] * 9, "item_id": items, "timestamp": times})


def test_the_hour_outweighs_what_is_newer(tmp_path: Path) -> None:
    store = prepare(_log(), tmp_path / "data", time_zone="UTC")
    config = NearHourConfig(half_life_days=2.0, sigma_hours=1.5, background=0.05)
    targets = select_targets(store, "test")
    (scores,) = fit_baseline(store, config)(targets.first_rows, targets)
    tea, wine = 0.0, 0.0
    for day in (1, 2, 3, 4):
        tea += 0.5 ** (day / 2) * 1.05
        wine += 0.5 ** ((day - 0.5) / 2) * (np.exp(-(12**2) / (2 * 1.5**2)) + 0.05)
    names = pl.read_parquet(store.path / "items.parquet")["item_id"].to_list()
    assert scores[names.index("tea")] == pytest.approx(tea, abs=1e-5)
    assert scores[names.index("wine")] == pytest.approx(wine, abs=1e-5)


def test_a_log_without_hours_is_refused(tmp_path: Path) -> None:
    store = prepare(_log(), tmp_path / "data")
    with pytest.raises(ConfigError, match="zone"):
        fit_baseline(store, NearHourConfig())
