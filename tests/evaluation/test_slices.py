from typing import Any

import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.slices import POPULARITY_CLASSES, Slices, popularity_classes, slice_metrics, slice_rows
from recsys.evaluation.targets import EvaluationTargets, select_targets


def classes(counts: list[int]) -> list[str]:
    return [POPULARITY_CLASSES[place] for place in popularity_classes(np.array(counts))]


def _slices(ranks: Any, targets: EvaluationTargets, counts: Any, hours: Any = None) -> Slices:
    return slice_metrics(ranks, targets.user, slice_rows(targets, counts, hours))


def test_popularity_classes_follow_the_share_of_events_held_by_more_popular_items() -> None:
    # Ahead of each item: .0, .39, .64, .79, .90 of 100 events.
    assert classes([39, 25, 15, 11, 10, 0]) == ["head", "middle", "middle", "middle", "tail", "cold"]
    assert classes([0, 19, 1, 80]) == ["cold", "tail", "tail", "head"]


def test_items_with_equal_counts_share_a_class() -> None:
    assert classes([3, 3, 3, 3]) == ["head"] * 4
    assert classes([8, 1, 1]) == ["head", "tail", "tail"]


def test_no_training_events_make_every_item_cold() -> None:
    assert classes([0, 0]) == ["cold", "cold"]


def test_slices_by_hand(make_store: Any) -> None:
    store = make_store(
        [
            ([0, 0, 0], [1], [2]),  # length 4, target 2 is cold and new
            ([0] * 4, [1], [0]),  # length 5, target 0 is head and repeated
            ([0] * 9, [0], [1]),  # length 10, target 1 is cold
        ],
        n_items=3,
    )
    slices = _slices([1, 3, 11], select_targets(store), store.item_counts())
    assert slices["history_length"]["1-4"] == {"rows": 1, "users": 1, "hr@10": 1.0, "ndcg@10": 1.0}
    assert slices["history_length"]["5-9"] == {"rows": 1, "users": 1, "hr@10": 1.0, "ndcg@10": 0.5}
    assert slices["history_length"]["10-19"] == {"rows": 1, "users": 1, "hr@10": 0.0, "ndcg@10": 0.0}
    assert slices["history_length"]["200+"] == {"rows": 0, "users": 0, "hr@10": None, "ndcg@10": None}
    assert slices["popularity"]["cold"]["rows"] == 2
    assert slices["popularity"]["head"] == {"rows": 1, "users": 1, "hr@10": 1.0, "ndcg@10": 0.5}
    assert slices["item"] == {
        "warm": {"rows": 1, "users": 1, "hr@10": 1.0, "ndcg@10": 0.5},
        "cold": {"rows": 2, "users": 2, "hr@10": 0.5, "ndcg@10": 0.5},
    }
    warm = _slices([1, 3, 11], select_targets(store), np.ones(3, np.int64))
    assert "item" not in warm
    assert slices["target"]["repeated"]["rows"] == 1
    assert slices["target"]["new"]["hr@10"] == 0.5


def test_each_way_of_slicing_holds_every_row_once(random_store: Any) -> None:
    store = random_store(1, segment=4)
    targets = select_targets(store, "test", "all")
    slices = _slices(np.arange(1, targets.n_rows + 1), targets, store.item_counts())
    for parts in slices.values():
        assert sum(part["rows"] for part in parts.values()) == targets.n_rows


def test_ranks_that_are_not_one_per_row_are_refused(random_store: Any) -> None:
    store = random_store(1)
    with pytest.raises(ArgumentError, match="one rank for each"):
        _slices([1], select_targets(store), store.item_counts())


def test_requests_are_sliced_by_hour(make_store: Any) -> None:
    store = make_store([([0], [1], [2]), ([1], [2], [3]), ([2], [3], [0])], 4)
    targets = select_targets(store)
    slices = _slices([1, 3, 11], targets, store.item_counts(), np.array([0, 23, 23]))
    assert slices["hour"]["00"] == {"rows": 1, "users": 1, "hr@10": 1.0, "ndcg@10": 1.0}
    assert slices["hour"]["23"] == {"rows": 2, "users": 2, "hr@10": 0.5, "ndcg@10": 0.25}
    assert slices["hour"]["12"]["ndcg@10"] is None
    with pytest.raises(ArgumentError, match="one hour for each"):
        _slices([1, 3, 11], targets, store.item_counts(), np.array([0]))
