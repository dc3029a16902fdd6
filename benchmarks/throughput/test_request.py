"""One request from raw ids to raw ids, by the facade of the library."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys import Recommender
from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import Sizes
from recsys.benchmarks.training import ENCODERS
from recsys.datasets.prepared.store import SequenceStore


@pytest.fixture(scope="module")
def log(store: SequenceStore) -> Any:
    import polars as pl

    users = np.repeat(np.arange(store.n_users), np.diff(store.offsets))
    return pl.DataFrame({"user_id": users, "item_id": store.items, "timestamp": store.timestamps})


@pytest.mark.parametrize("encoder", ENCODERS)
def test_request(encoder: str, log: Any, sizes: Sizes, tmp_path: Path, meter: Meter) -> None:
    model = Recommender(encoder, training_options={"epochs": 1}, device="cpu")
    model.fit(log, out=tmp_path / "run")
    history = log.filter(log["user_id"] == 0)["item_id"].to_list()[-50:]
    answer = meter(
        lambda: model.recommend(histories=[history], k=10),
        group=f"request, history of {len(history)}, {model.store_.n_items:,} items",
        events=1,
    )
    assert len(answer) == 10
    assert not set(answer["item_id"]) & set(history)
