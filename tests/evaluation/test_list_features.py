"""Lists of four users, worked out by hand.

Items bear the tags 0: a, 1: b, 2: a and b, 3: c, 4: none; their vectors are (1, 0), (0, 2), (1, 1), (-1, 0)
and none at all.
"""

from dataclasses import replace
from math import log, sqrt

import numpy as np
import pytest

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.errors import ArgumentError
from recsys.evaluation.list_features import FeatureLists
from recsys.evaluation.list_metrics import ListMetrics

FEATURES = ItemFeatures(
    tags=np.array([0, 1, 0, 1, 2], dtype=np.int32),
    tag_offsets=np.array([0, 1, 2, 4, 5, 5]),
    tag_weights=np.array([1, 1, sqrt(0.5), sqrt(0.5), 1], dtype=np.float32),
    n_tags=3,
    vectors=np.array([[1, 0], [0, 2], [1, 1], [-1, 0], [0, 0]], dtype=np.float16),
)
LISTS = np.array([[0, 1, 2], [2, 0, -1], [4, 3, -1], [0, 3, -1]])
HISTORIES = np.array([0, 0, 2, 3, 1, 4]), np.array([0, 2, 4, 5, 6])


def found(ks: tuple[int, ...], features: ItemFeatures = FEATURES, rows: int = 4) -> dict[str, float]:
    totals = FeatureLists(features, ks)
    items, offsets = HISTORIES
    for first in range(0, 4, rows):
        bounds = offsets[first : first + rows + 1]
        totals.update(LISTS[first : first + rows], (items[bounds[0] : bounds[-1]], bounds - bounds[0]))
    return totals.result()


def test_diversity_by_tags() -> None:
    # Of the third user's list one item has tags: not counted.
    figures = found((2, 3))
    assert figures["diversity_tags@2"] == pytest.approx((1 + (1 - 1 / sqrt(2)) + 1) / 3)
    assert figures["diversity_tags@3"] == pytest.approx((1 - sqrt(2) / 3 + (1 - 1 / sqrt(2)) + 1) / 3)


def test_diversity_by_vectors() -> None:
    assert found((2,))["diversity_vectors@2"] == pytest.approx((1 + (1 - 1 / sqrt(2)) + 2) / 3, abs=1e-6)


def test_calibration() -> None:
    first = log(1 / (0.99 / 2 + 0.01))
    second = 0.25 * log(0.25 / (0.99 * 0.75 + 0.0025)) + 0.25 * log(1) + 0.5 * log(0.5 / 0.005)
    third = log(100)  # none of the history's tags
    # The fourth history has no tag: not counted.
    assert found((2,))["calibration_kl@2"] == pytest.approx((first + second + third) / 3)


def test_a_list_with_the_historys_shares_is_calibrated() -> None:
    totals = FeatureLists(FEATURES, (3,))
    totals.update(np.array([[0, 1, 3], [1, 0, 2]]), (np.array([3, 1, 0, 2, 2]), np.array([0, 3, 5])))
    assert totals.result()["calibration_kl@3"] == pytest.approx(0, abs=1e-12)


def test_columns_share_an_item_alike_however_many_tags_they_have() -> None:
    # One item, a column with tag 0 and one with tags 1 and 2: shares 1/2, 1/4, 1/4.
    features = ItemFeatures(
        tags=np.array([0, 1, 2, 0], dtype=np.int32),
        tag_offsets=np.array([0, 3, 4]),
        tag_weights=np.array([1, sqrt(0.5), sqrt(0.5), 1], dtype=np.float32),
        n_tags=3,
        vectors=None,
    )
    totals = FeatureLists(features, (2,))
    totals.update(np.array([[1, -1]]), (np.array([0]), np.array([0, 1])))
    expected = 0.5 * log(0.5 / (0.99 + 0.005)) + 2 * 0.25 * log(0.25 / 0.0025)
    assert totals.result() == {"calibration_kl@2": pytest.approx(expected), "diversity_tags@2": 0.0}


def test_one_place_has_no_diversity_and_features_that_are_not_there_tell_nothing() -> None:
    assert list(found((1,))) == ["calibration_kl@1"]
    assert list(found((2,), replace(FEATURES, vectors=None))) == ["calibration_kl@2", "diversity_tags@2"]
    assert list(found((2,), replace(FEATURES, n_tags=0))) == ["diversity_vectors@2"]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_batches_give_the_bits_of_the_whole(rows: int) -> None:
    assert found((1, 2, 3), rows=rows) == found((1, 2, 3))


def test_nobody_with_tags_gives_zero() -> None:
    totals = FeatureLists(FEATURES, (2,))
    totals.update(np.array([[4, -1]]), (np.array([4]), np.array([0, 1])))
    assert set(totals.result().values()) == {0.0}


def test_histories_are_asked_for() -> None:
    with pytest.raises(ArgumentError, match="history is missing"):
        ListMetrics(np.ones(5, dtype=np.int64), (2,), FEATURES).update(LISTS)
