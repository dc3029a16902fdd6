"""Items that nobody has clicked yet are answered as well as the others, by their features alone."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic.attributes import attribute_log
from recsys.datasets.synthetic.logs import SyntheticLog
from recsys.evaluation.card import render_card


@pytest.fixture(scope="module")
def log() -> SyntheticLog:
    return attribute_log(seed=0)


@pytest.fixture(scope="module")
def prepared(log: SyntheticLog, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    out = Path(tmp_path_factory.mktemp("attributes")) / "data"
    return prepare(
        log.frame, out, items=log.items, item_tags="group", item_vectors=log.vectors, keep_cold=True
    )


def _trained(
    prepared: SequenceStore, name: str = "sasrec", loss: str = "full", seed: int = 0, **encoder: Any
) -> Recommender:
    small = {"d_model": 32, "n_layers": 1, "d_ff": 64, "dropout": 0.1, "max_length": 40, "repeat_bias": 0}
    training = {"batch_events": 1024, "learning_rate": 5e-3, "label_smoothing": 0.0, "ema_decay": 0.98}
    return Recommender(
        name,
        encoder_options={**small, **encoder},
        training_options={**training, "loss": loss, "seed": seed, "epochs": 12, "evaluate_every": 4},
    ).fit(prepared)


def _hits(
    prepared: SequenceStore, name: str = "sasrec", loss: str = "full", **encoder: Any
) -> tuple[float, float, str]:
    """HR@10 of targets with and without a training event, and the card."""
    model = _trained(prepared, name, loss, **encoder)
    result = model.evaluate()
    warm, cold = (result.slices["item"][name] for name in ("warm", "cold"))
    assert warm["rows"] + cold["rows"] == 1500
    return warm["hr@10"], cold["hr@10"], render_card(result.protocol)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "loss"), [("sasrec", "full"), ("sasrec", "sampled_softmax"), ("mamba", "full")]
)
def test_features_answer_for_items_without_events(
    name: str, loss: str, log: SyntheticLog, prepared: SequenceStore
) -> None:
    best = log.best["hr@10"]
    warm, cold, card = _hits(prepared, name, loss, item_parts="id+features", item_id_dropout=0.7)
    assert cold >= 0.8 * best
    assert warm >= 0.95 * best
    assert "100 of the catalog have no training event" in card


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["full", "gbce"])
def test_ids_alone_leave_items_without_events_last(loss: str, prepared: SequenceStore) -> None:
    warm, cold, _ = _hits(prepared, loss=loss)
    assert cold <= 0.02
    assert warm > 0.05


@pytest.mark.slow
def test_items_that_come_after_training_are_answered_as_cold_ones(log: SyntheticLog, tmp_path: Path) -> None:
    """The model never saw them: not in the log, not in the item file."""
    assert log.items is not None
    assert log.vectors is not None
    last = log.frame.sort("user_id", "timestamp").group_by("user_id", maintain_order=True).last()
    before = log.frame.join(last, on=["user_id", "timestamp"], how="anti")
    seen = pl.Series(log.items["item_id"]).is_in(before["item_id"].unique().implode()).to_numpy()
    store = prepare(
        before,
        tmp_path / "data",
        items=log.items.filter(seen),
        item_tags="group",
        item_vectors=log.vectors[seen],
    )
    assert store.n_items == 300
    cold = last.filter(~pl.col("item_id").is_in(before["item_id"].unique().implode()))
    assert cold.height > 200
    hits: list[bool] = []
    # Which items of a group come first is chance, and the same for all of its users: one model says little.
    for seed in range(3):
        model = _trained(store, seed=seed, item_parts="id+features", item_id_dropout=0.7)
        model.add_items(log.items.filter(~seen), item_tags="group", item_vectors=log.vectors[~seen])
        ids, _ = model.recommend_arrays(cold["user_id"].to_list(), k=10, exclude_seen=False)
        hits += [target in own for target, own in zip(cold["item_id"].to_list(), ids.tolist(), strict=True)]
    assert sum(hits) / len(hits) >= 0.8 * log.best["hr@10"]
