from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.metrics import check_draws, check_ks, mean_metrics, per_user_metrics, serendipity


def test_one_target_at_rank_three_by_hand() -> None:
    metrics = mean_metrics(per_user_metrics([3], ks=(1, 5)))
    assert metrics == pytest.approx(
        {
            "hr@1": 0,
            "hr@5": 1,
            "recall@1": 0,
            "recall@5": 1,
            "ndcg@1": 0,
            "ndcg@5": 0.5,  # 1 / log2(4), ideal 1
            "mrr@1": 0,
            "mrr@5": 1 / 3,
            "precision@1": 0,
            "precision@5": 1 / 5,
            "map@1": 0,
            "map@5": 1 / 3,
        }
    )


def test_a_user_with_three_targets_by_hand() -> None:
    # Ranks 1, 3 and 20; a second user misses. log2(2) = 1, log2(4) = 2.
    values = per_user_metrics([20, 1, 3, 11], [0, 3, 4], ks=(2, 10))
    ideal_2, ideal_3 = 1 + 1 / np.log2(3), 1 + 1 / np.log2(3) + 0.5
    np.testing.assert_allclose(values["hr@10"], [1, 0])
    np.testing.assert_allclose(values["recall@2"], [1 / 3, 0])
    np.testing.assert_allclose(values["recall@10"], [2 / 3, 0])
    np.testing.assert_allclose(values["ndcg@2"], [1 / ideal_2, 0])
    np.testing.assert_allclose(values["ndcg@10"], [1.5 / ideal_3, 0])
    np.testing.assert_allclose(values["mrr@10"], [1, 0])
    np.testing.assert_allclose(values["precision@2"], [1 / 2, 0])
    np.testing.assert_allclose(values["precision@10"], [2 / 10, 0])
    np.testing.assert_allclose(values["map@2"], [1 / 2, 0])  # one of two places that could be hits
    np.testing.assert_allclose(values["map@10"], [(1 / 1 + 2 / 3) / 3, 0])


def test_users_weigh_the_same_however_many_targets_they_have() -> None:
    assert mean_metrics(per_user_metrics([1, 1, 1, 50], [0, 3, 4], ks=(10,)))["recall@10"] == 0.5


def test_the_constant_ideal_is_that_of_rectools() -> None:
    standard = per_user_metrics([1], ks=(10,))["ndcg@10"][0]
    constant = per_user_metrics([1], ks=(10,), ndcg_ideal="constant")["ndcg@10"][0]
    assert standard == 1.0
    assert standard / constant == pytest.approx(4.5436, abs=1e-4)


def test_all_targets_first_is_a_perfect_list() -> None:
    values = per_user_metrics([2, 3, 1], [0, 3], ks=(1, 2, 3, 10))
    assert all(
        values[f"{name}@{k}"][0] == pytest.approx(1) for name in ("ndcg", "map") for k in (1, 2, 3, 10)
    )


def test_targets_that_share_a_rank_are_both_found_at_it() -> None:
    # Two tied behind each other at rank 2 (pessimistic), a third at 4: precision there is 2/2, 2/2 and 3/4.
    assert per_user_metrics([2, 4, 2], [0, 3], ks=(10,))["map@10"][0] == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_average_precision_is_that_of_the_list_walked_place_by_place() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 6, 40)
    ranks = np.concatenate([rng.choice(30, size, replace=False) + 1 for size in sizes])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    for k in (1, 4, 15):
        expected = []
        for first, last in pairwise(offsets):
            hits, total = 0, 0.0
            for place in range(1, k + 1):
                if place in ranks[first:last]:
                    hits += 1
                    total += hits / place
            expected.append(total / min(last - first, k))
        np.testing.assert_allclose(per_user_metrics(ranks, offsets, (k,))[f"map@{k}"], expected)


def test_serendipity_counts_targets_that_popularity_lacks_by_hand() -> None:
    ranks, popularity = np.array([1, 3, 20, 11]), np.array([1, 11, 30, 50])
    found = serendipity(ranks, popularity, np.array([0, 3, 4]), (1, 10, 20))
    # At 10 the second target of the first user; at 20 the third and the other user's, too.
    assert found == pytest.approx(
        {"serendipity@1": 0, "serendipity@10": 1 / 3 / 2, "serendipity@20": (1 / 3 + 1) / 2}
    )
    assert serendipity(ranks, ranks, np.array([0, 3, 4]), (20,)) == {"serendipity@20": 0}
    assert serendipity(np.zeros(0), np.zeros(0), np.array([0]), (5,)) == {"serendipity@5": 0}


def test_average_ranks_between_the_cut_offs_count_as_they_are() -> None:
    values = per_user_metrics(np.array([10.5, 9.5]), ks=(10,))
    assert values["hr@10"].tolist() == [0, 1]
    assert values["mrr@10"].tolist() == [0, 1 / 9.5]


def test_names_are_grouped_by_metric_with_rising_cut_offs() -> None:
    names = list(per_user_metrics([1], ks=(20, 1)))
    metrics = ("hr", "recall", "ndcg", "mrr", "precision", "map")
    assert names == [f"{name}@{k}" for name in metrics for k in (1, 20)]


def test_nobody_counted_gives_zero() -> None:
    assert mean_metrics(per_user_metrics([], [0], ks=(10,))) == {
        "hr@10": 0.0,
        "recall@10": 0.0,
        "ndcg@10": 0.0,
        "mrr@10": 0.0,
        "precision@10": 0.0,
        "map@10": 0.0,
    }


@pytest.mark.parametrize("ranks", [[0], [np.nan], [np.inf], [[1]]])
def test_impossible_ranks_are_refused(ranks: list[float]) -> None:
    with pytest.raises(ArgumentError, match="ranks must be"):
        per_user_metrics(ranks)


@pytest.mark.parametrize("offsets", [[0, 1], [0, 0, 2], [1, 2], []])
def test_groups_that_do_not_cover_the_rows_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ArgumentError, match="row_offsets"):
        per_user_metrics([1, 2], offsets)


@pytest.mark.parametrize("ks", [(), (0,), (1.5,), (5, -1)])
def test_bad_cut_offs_are_refused(ks: tuple[float, ...]) -> None:
    with pytest.raises(ArgumentError, match="ks="):
        check_ks(ks)  # type: ignore[arg-type]


def test_an_unknown_ideal_is_refused() -> None:
    with pytest.raises(ArgumentError, match="ndcg_ideal"):
        per_user_metrics([1], ndcg_ideal="none")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None])
def test_seeds_and_counts_of_draws_are_whole_numbers(value: Any) -> None:
    with pytest.raises(ArgumentError, match="seed=.* must be a whole number of at least 0"):
        check_draws("seed", value)


def test_a_seed_of_numpy_is_that_number() -> None:
    assert check_draws("seed", np.int64(7)) == 7
