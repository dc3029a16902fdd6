import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.list_metrics import ListMetrics, list_metrics

COUNTS = np.array([4, 2, 1, 1, 0], dtype=np.int64)  # 8 training events: 1, 2, 3, 3 bits, and 3 for the unseen
IDS = np.array([[0, 1], [0, 4], [2, -1]], dtype=np.int64)


def test_coverage_and_novelty_by_hand() -> None:
    metrics = list_metrics(IDS, COUNTS, (1, 2))
    assert metrics["coverage@1"] == pytest.approx(2 / 5)
    assert metrics["coverage@2"] == pytest.approx(4 / 5)
    assert metrics["novelty@1"] == pytest.approx((1 + 1 + 3) / 3)
    assert metrics["novelty@2"] == pytest.approx((1 + 2 + 1 + 3 + 3) / 5)


def test_exposure_by_hand() -> None:
    # Times in the first place: 0 0 0 1 2, in both: 0 1 1 1 2. Weights -4 -2 0 2 4, over 5 items.
    metrics = list_metrics(IDS, COUNTS, (1, 2))
    assert metrics["gini@1"] == pytest.approx((2 * 1 + 4 * 2) / (5 * 3))
    assert metrics["gini@2"] == pytest.approx((-2 * 1 + 2 * 1 + 4 * 2) / (5 * 5))


def test_exposure_of_one_item_and_of_all_alike() -> None:
    assert list_metrics(np.zeros((9, 1), dtype=np.int64), COUNTS, (1,))["gini@1"] == pytest.approx(1 - 1 / 5)
    assert list_metrics(np.arange(5)[:, None], COUNTS, (1,))["gini@1"] == 0


def test_batches_add_up_to_the_whole() -> None:
    totals = ListMetrics(COUNTS, (1, 2))
    for row in IDS:
        totals.update(row[None])
    assert totals.result() == list_metrics(IDS, COUNTS, (1, 2))


def test_the_same_list_for_everyone_covers_k_items() -> None:
    assert list_metrics(np.tile([3, 1], (50, 1)), COUNTS, (2,))["coverage@2"] == 2 / 5


def test_no_recommendation_at_all_gives_zero() -> None:
    assert list_metrics(np.full((2, 1), -1), COUNTS, (1,)) == {
        "coverage@1": 0.0,
        "novelty@1": 0.0,
        "gini@1": 0.0,
    }


def test_short_lists_and_unknown_ids_are_refused() -> None:
    with pytest.raises(ArgumentError, match="at least 3 places"):
        list_metrics(IDS, COUNTS, (3,))
    with pytest.raises(ArgumentError, match="lies outside"):
        list_metrics(np.array([[5]]), COUNTS, (1,))
