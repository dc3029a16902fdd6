"""The best scores that synthetic logs state are those that a recommender who knows the rule reaches."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from recsys.datasets.sources.readers import read_interactions
from recsys.datasets.synthetic.attributes import attribute_log
from recsys.datasets.synthetic.logs import SyntheticLog, clock_log, markov_log
from recsys.errors import ArgumentError, DataError

MARKOV = markov_log(6_000, 150, seed=7)
CLOCK = clock_log(6_000, 120, groups=3, utc_offset_hours=-5, seed=7)

ATTRIBUTES = attribute_log(6_000, 200, groups=10, cold=0.3, mean_length=30, seed=7)


def scores_of(lists: NDArray[np.int64], targets: NDArray[np.int64], k: int) -> dict[str, float]:
    """HR, NDCG and MRR of ranked lists, written out user by user."""
    hits, gains, inverse = [], [], []
    for ranked, target in zip(lists, targets, strict=True):
        place = np.flatnonzero(ranked[:k] == target)
        hits.append(float(len(place)))
        gains.append(1 / np.log2(place[0] + 2) if len(place) else 0.0)
        inverse.append(1 / (place[0] + 1) if len(place) else 0.0)
    return {f"hr@{k}": np.mean(hits), f"ndcg@{k}": np.mean(gains), f"mrr@{k}": np.mean(inverse)}


def last_events(log: SyntheticLog) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Last item, the one before it, and the time of the last."""
    rows = log.frame.group_by("user_id", maintain_order=True).agg(
        pl.col("item_id").last().alias("last"),
        pl.col("item_id").get(-2).alias("before"),
        pl.col("timestamp").last(),
    )
    return rows["last"].to_numpy(), rows["before"].to_numpy(), rows["timestamp"].to_numpy()


@pytest.mark.parametrize("log", [MARKOV, CLOCK, ATTRIBUTES], ids=["markov", "clock", "attributes"])
def test_logs_obey_the_contract_without_ties(log: SyntheticLog, tmp_path: Path) -> None:
    frame = log.frame
    assert frame.columns == ["user_id", "item_id", "timestamp"]
    assert read_interactions(log.write(tmp_path / "log.parquet")).equals(frame)
    gaps = frame.select(pl.col("timestamp").diff().over("user_id")).drop_nulls()
    assert gaps["timestamp"].min() > 0  # type: ignore[operator]
    assert frame.group_by("user_id").len()["len"].min() == 5
    assert frame.group_by("user_id").len()["len"].mean() == pytest.approx(30, rel=0.05)
    assert frame["user_id"].n_unique() == 6_000


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_an_oracle_of_groups_reaches_the_best_on_cold_and_warm_targets(k: int) -> None:
    log = ATTRIBUTES
    assert log.items is not None
    assert log.successors is not None
    group = log.items["group"].str.slice(len("group-")).cast(pl.Int64).to_numpy()
    assert np.bincount(group).tolist() == [20] * 10
    target, before, _ = last_events(log)
    rng = np.random.default_rng(0)
    # The groups by likelihood, each with its items in an order of each user's own.
    order = rng.permuted(
        np.broadcast_to(np.argsort(group, kind="stable").reshape(10, 20), (6_000, 10, 20)), axis=2
    )
    ranked = [
        own[[*follow, *(g for g in range(10) if g not in follow)]].ravel()
        for own, follow in zip(order, log.successors[group[before]].tolist(), strict=True)
    ]
    earlier = log.frame.filter(pl.col("timestamp") < pl.col("timestamp").last().over("user_id"))
    warm = np.isin(target, earlier["item_id"].unique().to_numpy())
    assert 0.25 < 1 - warm.mean() < 0.35
    for rows in (slice(None), warm, ~warm):
        found = scores_of(np.array(ranked)[rows], target[rows], k)
        for name, value in found.items():
            assert value == pytest.approx(log.best[name], abs=3 * 0.5 / np.sqrt(len(target[rows])))
    assert log.drawn[f"hr@{k}"] == pytest.approx(log.best[f"hr@{k}"], abs=3 * 0.5 / np.sqrt(6_000))


def test_vectors_of_a_group_lie_together() -> None:
    log = ATTRIBUTES
    assert log.items is not None
    assert log.vectors is not None
    group = log.items["group"].to_numpy()
    near = np.linalg.norm(log.vectors[:, None] - log.vectors[None], axis=2)
    same = group[:, None] == group[None]
    assert near[same].max() < near[~same].min()


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_an_oracle_of_the_markov_chain_reaches_the_best(k: int) -> None:
    assert MARKOV.successors is not None
    target, before, _ = last_events(MARKOV)
    found = scores_of(MARKOV.successors[before], target, k)
    for name, value in found.items():
        # Three standard errors of a mean over 6,000 users of a value in [0, 1].
        assert value == pytest.approx(MARKOV.best[name], abs=3 * 0.5 / np.sqrt(6_000))
        assert value == pytest.approx(MARKOV.drawn[name], abs=1e-9)


def test_no_other_list_beats_the_oracle_on_average() -> None:
    assert MARKOV.successors is not None
    target, before, _ = last_events(MARKOV)
    popular = MARKOV.frame["item_id"].value_counts(sort=True)["item_id"].to_numpy()[:10]
    for lists in (
        np.broadcast_to(popular, (6_000, 10)),
        MARKOV.successors[before][:, ::-1],
        MARKOV.successors[target],
    ):
        found = scores_of(lists, target, 10)
        assert found["hr@10"] < MARKOV.best["hr@10"] - 0.1
        assert found["ndcg@10"] < MARKOV.best["ndcg@10"] - 0.1


def test_transitions_of_the_chain_have_the_stated_frequencies() -> None:
    log = markov_log(20_000, 12, branching=3, decay=0.5, noise=0.3, seed=1)
    assert log.successors is not None
    pairs = log.frame.with_columns(before=pl.col("item_id").shift().over("user_id")).drop_nulls()
    counts = np.zeros((12, 12))
    np.add.at(counts, (pairs["before"].to_numpy(), pairs["item_id"].to_numpy()), 1)
    measured = counts / counts.sum(axis=1, keepdims=True)
    expected = np.full((12, 12), 0.3 / 12)
    for item in range(12):
        expected[item, log.successors[item]] += 0.7 * np.array([4, 2, 1]) / 7
        assert np.allclose(log.probabilities[item], expected[item, log.successors[item]])
    assert np.allclose(expected.sum(axis=1), 1)
    assert np.abs(measured - expected).max() < 0.01


@pytest.mark.parametrize(("n_items", "branching"), [(21, 20), (1_000, 20), (2, 1), (60, 30)])
def test_successors_are_distinct_and_never_the_item_itself(n_items: int, branching: int) -> None:
    log = markov_log(5, n_items, branching=branching)
    assert log.successors is not None
    for item, row in enumerate(log.successors):
        assert len(set(row)) == branching
        assert item not in row
        assert row.min() >= 0
        assert row.max() < n_items


def test_a_wide_list_reaches_all_there_is() -> None:
    log = markov_log(50, 15, branching=3)
    assert log.best["hr@20"] == pytest.approx(1)
    assert log.drawn["hr@20"] == pytest.approx(1)


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_an_oracle_of_the_clock_reaches_the_best_with_the_hour_and_less_without(k: int) -> None:
    assert CLOCK.user_group is not None
    assert CLOCK.without_clock is not None
    target, _, time = last_events(CLOCK)
    part = (time - 5 * 3_600) // 3_600 % 24 // 4
    knowing = np.argsort(-CLOCK.probabilities[CLOCK.user_group, part], axis=1)
    blind = np.argsort(-CLOCK.probabilities.mean(axis=1)[CLOCK.user_group], axis=1)
    error = 3 * 0.5 / np.sqrt(6_000)
    for lists, stated in ((knowing, CLOCK.best), (blind, CLOCK.without_clock)):
        for name, value in scores_of(lists, target, k).items():
            assert value == pytest.approx(stated[name], abs=error)
    for name, value in scores_of(knowing, target, k).items():
        assert value == pytest.approx(CLOCK.drawn[name], abs=1e-9)
    assert CLOCK.without_clock[f"hr@{k}"] < CLOCK.best[f"hr@{k}"] - 0.1


def test_the_hours_before_say_nothing_of_the_next() -> None:
    frame = CLOCK.frame.with_columns(
        part=(pl.col("timestamp") - 5 * 3_600) // 3_600 % 24 // 4,
    ).with_columns(before=pl.col("part").shift().over("user_id"))
    table = frame.drop_nulls().group_by("before", "part").len()
    shares = table.with_columns(pl.col("len") / pl.col("len").sum().over("before"))["len"]
    assert len(shares) == 36
    assert np.abs(shares.to_numpy() - 1 / 6).max() < 0.01


@pytest.mark.parametrize("make", [markov_log, clock_log])
def test_the_seed_decides_everything(make: Any) -> None:
    assert make(50, 40, seed=3).frame.equals(make(50, 40, seed=3).frame)
    assert not make(50, 40, seed=3).frame.equals(make(50, 40, seed=4).frame)


@pytest.mark.parametrize(
    "options",
    [
        {"n_users": 0},
        {"branching": 200},
        {"branching": 0},
        {"decay": 1.0},
        {"noise": 1.0},
        {"min_length": 2},
        {"mean_length": 4.0},
    ],
)
def test_options_of_the_chain_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ArgumentError, match=f"{name}="):
        markov_log(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"n_users": 0},
        {"n_items": 1},
        {"groups": 0},
        {"parts": 5},
        {"decay": 0.0},
        {"noise": -0.1},
        {"min_length": 2},
        {"mean_length": 4.0},
        {"utc_offset_hours": 15.0},
    ],
)
def test_options_of_the_clock_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ArgumentError, match=f"{name}="):
        clock_log(**options)


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        markov_log(3, 30).write(tmp_path / "file" / "log.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
