"""What was removed comes nowhere, what was added comes where it may; answers say what they come from."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, UnknownIdError
from tests.conftest import random_log

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 16}
QUICK = {"epochs": 1, "batch_events": 512}


@pytest.fixture
def model(tmp_path: Path) -> Recommender:
    """A log of 30 items, of which 7 is the most popular."""
    log = random_log(users=60, items=30, seed=5)
    more = pl.DataFrame({"user_id": range(60), "item_id": [7] * 60, "timestamp": [5] * 60})
    recsys.prepare(pl.concat([log, more]), tmp_path / "data")
    return Recommender("sasrec", encoder_options=SMALL, training_options=QUICK).fit(tmp_path / "data")


def test_removed_items_come_nowhere(model: Recommender, tmp_path: Path) -> None:
    before = model.similar_items([7], k=40)
    assert len(before) == 29
    gone = before["similar_item_id"].to_list()[0]
    model.remove_items([7, gone])
    near = model.similar_items([7, 3], k=40)
    assert not {7, gone} & set(near["similar_item_id"])
    assert near.filter(pl.col("item_id") == 7).height == 28
    kept = before.filter(pl.col("similar_item_id") != gone).drop("rank")
    assert near.filter(pl.col("item_id") == 7).drop("rank").equals(kept)
    for options in (
        {},
        {"exclude_seen": False},
        {"interests": 3},
        {"allow": [7, gone, 3], "exclude_seen": False},
    ):
        assert not {7, gone} & set(model.recommend(k=40, **options)["item_id"])
    with pytest.warns(UserWarning, match="most popular"):
        popular = model.recommend(histories=[[]], k=40)
    assert not {7, gone} & set(popular["item_id"])
    model.score(tmp_path / "parts", k=40, exclude_seen=False)
    assert not {7, gone} & set(pl.read_parquet(tmp_path / "parts" / "part-*.parquet")["item_id"])
    assert not {7, gone} & set(model.live_users().recommend([3], k=40, exclude_seen=False)["item_id"])


def test_added_items_are_similar_and_filters_hold(model: Recommender) -> None:
    model.add_items([500], like=[[4]])
    near = model.similar_items([4], k=3)
    assert near["similar_item_id"][0] == 500
    assert near["score"][0] == pytest.approx(1.0, abs=1e-5)
    assert model.similar_items([500], k=1)["similar_item_id"].to_list() == [4]
    assert set(model.similar_items([4], k=40, allow=[500, 5, 6], deny=[5])["similar_item_id"]) == {500, 6}
    with pytest.warns(UserWarning, match="deny: 1 of 2"):
        assert 500 not in model.similar_items([4], k=40, deny=[500, "x"])["similar_item_id"]
    with pytest.raises(UnknownIdError, match="unknown item 501"):
        model.similar_items([4], allow=[501])
    # A known item that was given another vector is compared by that one.
    model.add_items([9], vectors=model.index_.vectors_of(np.array([4])))
    assert model.similar_items([9], k=2)["similar_item_id"].to_list() == [4, 500]
    model.remove_items([500])
    assert 500 not in model.similar_items([4], k=40)["similar_item_id"]
    with pytest.raises(ArgumentError, match="has no embedding"):
        model.similar_items([500])


def test_similar_items_under_latent_vectors_are_those_of_the_embeddings(model: Recommender) -> None:
    wanted = model.similar_items([4], k=29)
    model.build_index("exact", vectors="latent")
    assert model.similar_items([4], k=29).equals(wanted)
    model.remove_items([5])
    model.add_items([500], like=[[4]])
    near = model.similar_items([4], k=40)["similar_item_id"].to_list()
    assert near == [item for item in wanted["similar_item_id"] if item != 5]
    with pytest.raises(ArgumentError, match="has no embedding"):
        model.similar_items([500])


def test_answers_say_what_they_come_from(model: Recommender) -> None:
    with pytest.warns(UserWarning, match="1 request"):
        found = model.recommend(histories=[[1, 2], [], [3]], k=2)
    assert found.columns == ["user_id", "item_id", "score", "rank", "source"]
    assert found["source"].to_list() == ["model", "model", "popular", "popular", "model", "model"]
    assert model.recommend([], k=2).schema == found.schema
    with pytest.warns(UserWarning, match="1 request"):
        unknown = model.recommend(histories=[["x"]], k=1, on_unknown="ignore")
    assert unknown["source"].to_list() == ["popular"]
    assert unknown["item_id"].to_list() == [7]
