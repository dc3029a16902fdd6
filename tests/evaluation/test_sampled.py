from typing import Any

import numpy as np
import pytest
import torch

from recsys.errors import ArgumentError, DataError
from recsys.evaluation.sampled import draw_negatives, rank_first, ranks_among
from recsys.evaluation.targets import select_targets


def test_negatives_are_uniform_over_items_outside_training_and_the_target(make_store: Any) -> None:
    store = make_store([([0, 1, 1], [2], [3])], n_items=8)
    targets = select_targets(store)
    drawn = draw_negatives(store, targets, np.array([0]), 40_000, np.random.default_rng(0))
    counts = np.bincount(drawn[0], minlength=8)
    # The validation item 2 may be drawn, as in SASRec.pytorch.
    assert counts[[0, 1, 3]].tolist() == [0, 0, 0]
    np.testing.assert_allclose(counts[[2, 4, 5, 6, 7]] / 40_000, 0.2, atol=0.01)


def test_each_row_has_its_own_refused_items(random_store: Any) -> None:
    store = random_store(3)
    targets = select_targets(store)
    rows = np.arange(targets.n_rows)
    drawn = draw_negatives(store, targets, rows, 50, np.random.default_rng(0))
    assert drawn.shape == (targets.n_rows, 50)
    for row in rows:
        user = targets.user[row]
        training = set(store.items[store.offsets[user] : store.valid_start[user]].tolist())
        assert not (training | {targets.target[row]}) & set(drawn[row].tolist())


def test_a_user_who_has_everything_is_refused(make_store: Any) -> None:
    store = make_store([([0, 1], [1], [2])], n_items=3)
    with pytest.raises(DataError, match="user 0 has every item"):
        draw_negatives(store, select_targets(store), np.array([0]), 5, np.random.default_rng(0))


def test_ranks_among_negatives_by_hand() -> None:
    scores = np.array([[2.0, 3, 2, 1], [1, 1, 1, 1]], dtype=np.float32)
    assert rank_first(scores, "pessimistic").tolist() == [3, 4]
    assert rank_first(scores, "optimistic").tolist() == [2, 1]
    assert rank_first(scores, "average").tolist() == [2.5, 2.5]


def test_scores_are_inner_products_with_the_drawn_items() -> None:
    weight = torch.tensor([[1.0, 0], [0, 1], [2, 0], [0, 2]])
    ranks = ranks_among(
        torch.tensor([[1.0, 0], [0, 1]]), weight, np.array([0, 3]), np.array([[2, 1], [0, 1]]), "pessimistic"
    )
    assert ranks.tolist() == [2, 1]


def test_a_model_of_nan_does_not_rank_first() -> None:
    with pytest.raises(ArgumentError, match="not finite"):
        rank_first(np.array([[np.nan, 1.0]]), "pessimistic")
