"""Neighbours by hand, and inputs that give way to them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.datasets.prepared import feature_vectors as dense
from recsys.datasets.prepared.feature_vectors import feature_vectors
from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.synthetic.sparse import sparse_log
from recsys.encoders import build_encoder, encoder_config
from recsys.errors import ConfigError
from recsys.jagged import SequenceBatch
from recsys.recommender import Recommender
from recsys.training.config import TrainingConfig
from recsys.training.item_neighbours import item_neighbours
from recsys.training.objectives import cloze, make_task, next_item
from recsys.training.substitution import Substitution

# The last two of each user are held out: of training are 0 1 0 1 2, 0 1 3 and 4 4.
SEQUENCES = {0: [0, 1, 0, 1, 2, 5, 5], 1: [0, 1, 3, 5, 2], 2: [4, 4, 0, 5]}
TAGS = pl.DataFrame({"item_id": range(6), "genre": ["a|b", "a", "b", "c", "", "a"]})


@pytest.fixture(params=[None, 2])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SequenceStore:
    """In one piece, and in shards."""
    rows = [
        (user, item, 100 * place) for user, items in SEQUENCES.items() for place, item in enumerate(items)
    ]
    path = tmp_path / "log.parquet"
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(path)
    return prepare(path, tmp_path / "data", items=TAGS, item_tags="genre", shards=request.param)


def test_items_that_stand_together_are_near(store: SequenceStore) -> None:
    # Counts 3 3 1 1 2 0; together 0 and 1 four times and once more, 0 or 1 and 2 twice, with 3 once.
    found = item_neighbours(store, "beside", 3)
    near = {(0, 1): 5 / 23, (0, 2): 2 / (3**0.5 + 20), (0, 3): 1 / (3**0.5 + 20)}
    assert sorted(near.values(), reverse=True) == list(near.values())
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, -1], [0, 1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert item_neighbours(store, "beside", 1)[:, 0].tolist() == [1, 0, 0, 0, -1, -1]


def test_items_of_the_same_tags_are_near(store: SequenceStore) -> None:
    # Item 5 never trains, so it is nobody's neighbour; 4 bears no tag.
    found = item_neighbours(store, "features", 2)
    assert found.tolist() == [[1, 2], [0, -1], [0, -1], [-1, -1], [-1, -1], [1, 0]]


def test_features_of_tags_and_vectors_weigh_the_same() -> None:
    features = ItemFeatures(
        tags=np.array([0, 1, 0, 2], dtype=np.int32),
        tag_offsets=np.array([0, 2, 3, 4, 4]),
        tag_weights=np.array([0.5**0.5, 0.5**0.5, 1, 1], dtype=np.float32),
        n_tags=3,
        vectors=np.array([[2, 0], [3, 4], [0, 0], [0, 0]], dtype=np.float16),
    )
    vectors = feature_vectors(features)
    assert vectors[0] @ vectors[1] == pytest.approx((0.5**0.5 + 0.6) / 2, abs=1e-6)
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 1, 1, 0])


def test_many_tags_are_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    tags = np.concatenate([np.sort(rng.choice(3_000, 20, replace=False)) for _ in range(30)]).astype(np.int32)
    tags[20:30] = tags[:10]  # the second shares half of the first's
    tags[20:40].sort()
    features = ItemFeatures(
        tags=tags,
        tag_offsets=np.arange(31) * 20,
        tag_weights=np.full(600, 20**-0.5, dtype=np.float32),
        n_tags=3_000,
        vectors=None,
    )
    projected = feature_vectors(features)
    assert projected.shape == (30, 1_024)
    monkeypatch.setattr(dense, "MOST_TAGS", 3_000)
    exact = feature_vectors(features)
    assert np.abs(projected @ projected.T - exact @ exact.T).max() < 0.15
    assert exact[0] @ exact[1] > 0.49


@pytest.mark.parametrize("task_of", ["next", "cloze"])
def test_inputs_give_way_and_targets_stay(task_of: str) -> None:
    rng = np.random.default_rng(1)
    batch = SequenceBatch.from_lengths(rng.integers(0, 6, 4_000).astype(np.int32), np.full(100, 40))
    task = (
        next_item(batch)
        if task_of == "next"
        else cloze(batch, 6, rng, mask_probability=0.3, last_mask_probability=0.1)
    )
    # Item 5 has no neighbour; 4 has one.
    neighbours = np.array([[1, 2], [2, 3], [3, 4], [4, 5], [0, -1], [-1, -1]], dtype=np.int32)
    seeds = np.random.SeedSequence(7)
    found = Substitution(0.25, neighbours)(task, seeds)
    assert torch.equal(found.targets, task.targets)
    before, after = task.batch.items.numpy(), found.batch.items.numpy()
    changed = before != after
    assert not changed[(before == 5) | (before == 6)].any()
    assert changed[before < 5].mean() == pytest.approx(0.25, abs=0.03)
    for item, near in enumerate(neighbours[:4]):
        counts = [(after[changed & (before == item)] == other).mean() for other in near]
        assert counts == pytest.approx([0.5, 0.5], abs=0.15)
    assert set(after[changed & (before == 4)]) == {0}
    again = Substitution(0.25, neighbours)(task, np.random.SeedSequence(7))
    assert torch.equal(again.batch.items, found.batch.items)


def test_nothing_is_replaced_unless_asked_for(store: SequenceStore) -> None:
    batch = SequenceBatch.from_lengths(np.arange(6, dtype=np.int32), np.array([6]))
    encoder = build_encoder("sasrec", 6, encoder_config("sasrec", {"d_model": 8, "max_length": 8}), seed=0)
    task = make_task(encoder, batch, np.random.default_rng(0))
    assert Substitution.of(store, TrainingConfig())(task, np.random.SeedSequence(0)) is task


def test_the_repeat_bias_knows_the_items_that_were_there(store: SequenceStore) -> None:
    options = {"d_model": 8, "max_length": 8, "repeat_bias": 4}
    encoder = build_encoder("sasrec", 6, encoder_config("sasrec", options), seed=0)
    batch = SequenceBatch.from_lengths(np.array([0, 1, 0, 1, 2], dtype=np.int32), np.array([5]))
    task = make_task(encoder, batch, np.random.default_rng(0))
    found = Substitution(0.99, item_neighbours(store, "beside"))(task, np.random.SeedSequence(3))
    assert not torch.equal(found.batch.items, task.batch.items)
    assert found.repeats is task.repeats


def test_features_are_asked_for(tmp_path: Path) -> None:
    log = pl.DataFrame({"user_id": [0] * 5, "item_id": [0, 1, 2, 0, 1], "timestamp": range(5)})
    store = prepare(log, tmp_path / "data")
    with pytest.raises(ConfigError, match="training.substitute_by = 'features' needs features of items"):
        Substitution.of(store, TrainingConfig(substitute=0.2, substitute_by="features"))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"training.substitute = .* at least 0 and below 1"):
        TrainingConfig(substitute=share)


@pytest.mark.slow
def test_where_items_are_rare_their_neighbours_teach(tmp_path: Path, one_thread: None) -> None:
    """2,000 items of 100 groups with at most three training events each, at equal steps."""
    log = sparse_log(seed=1)
    assert log.frame.group_by("user_id").head(10)["item_id"].value_counts()["count"].max() == 3
    store = prepare(log.frame, tmp_path / "data", items=log.items, item_tags="group")
    encoder = {"d_model": 32, "n_layers": 1, "n_heads": 1, "d_ff": 64, "max_length": 20}
    steps = {"epochs": 20, "batch_events": 512, "learning_rate": 5e-3, "evaluate_every": 20}

    def hits(**training: Any) -> float:
        model = Recommender(
            "sasrec", encoder_options=encoder, training_options={**steps, **training}, device="cpu"
        )
        return model.fit(store).evaluate()["hr@10"]

    plain, substituted = hits(), hits(substitute=0.5, substitute_by="features")
    assert substituted >= 1.5 * plain, (plain, substituted)
    assert substituted > 0.5 * log.best["hr@10"]
