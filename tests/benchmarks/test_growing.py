"""The program that compares going on with beginning anew, on a small log."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys import Recommender, prepare
from recsys.benchmarks import growing
from recsys.datasets.prepared.store import SequenceStore
from tests.conftest import random_log


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(encoder: str, *, seed: int, device: str) -> Recommender:
        return Recommender(
            encoder,
            seed=seed,
            device=device,
            encoder_options={"d_model": 8, "n_layers": 1, "max_length": 8},
            training_options={"epochs": 20, "patience": 3, "batch_events": 256},
        )

    monkeypatch.setattr(growing, "Recommender", small)


def _later(log: pl.DataFrame) -> pl.DataFrame:
    """Users one after the other, and items that only the last of them have."""
    late = pl.col("user_id") >= 45
    return log.with_columns(
        timestamp=pl.col("timestamp") + 10_000_000 * pl.col("user_id"),
        item_id=pl.when(late & (pl.col("item_id") % 4 == 0))
        .then(pl.col("item_id") + 100)
        .otherwise(pl.col("item_id")),
    )


def test_a_run_goes_on_where_the_log_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    log = _later(random_log(users=60, items=24, seed=1, longest=20))
    whole = prepare(log, tmp_path / "whole")
    out = tmp_path / "record.json"
    growing.run(tmp_path, "made", [0.75], [0], {"learning_rate": 0.01}, out)
    (entry,) = json.loads(out.read_text())["runs"]
    early = SequenceStore.open(tmp_path / "before-0.75")
    assert early.n_events == pytest.approx(0.75 * whole.n_events, abs=1)
    assert entry["users"]["known"] == early.n_users < whole.n_users
    assert entry["items"]["new"] == whole.n_items - early.n_items > 0
    epochs = entry["goes_on"]["epochs"]
    assert epochs == max(1, entry["scratch"]["epochs"] // growing.TENTH)
    for name in ("same", "changed", "random"):
        side: dict[str, Any] = entry["goes_on"][name]
        assert len(side["by_epoch"]) == len(side["new_by_epoch"]) == epochs
        assert side["best"] == max(side["by_epoch"])
    # The program goes on as the command does.
    on = Recommender("sasrec", encoder_options={"d_model": 8, "n_layers": 1, "max_length": 8})
    on.training_options = {"epochs": epochs, "learning_rate": 0.01}
    on.fit(whole, from_run=tmp_path / "seed0" / "parent-0.75")
    figures = [record["valid"]["ndcg@10"] for record in on.history_]
    assert figures == entry["goes_on"]["changed"]["by_epoch"]
