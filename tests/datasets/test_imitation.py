from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.synthetic import like
from recsys.datasets.synthetic.habit_walk import walk_by_habit
from recsys.datasets.synthetic.habits import LEAST, RareTriples, bucket_of, learn_habits
from recsys.datasets.synthetic.logs import markov_log
from recsys.datasets.synthetic.tastes import k_means, singular_vectors
from recsys.errors import ArgumentError, DataError

DAY_S = 86_400


def two_tastes(seed: int = 0, users: int = 300) -> pl.DataFrame:
    """Users of two tastes, one for items 0-59 with short histories, one for 60-119 with long ones.

    Three events in ten are of the item before last; gaps are none, or of a day; even items go out of use at
    day 50, when odd ones begin.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        taste = user % 2
        day = int(rng.integers(0, 90))
        mine: list[int] = []
        for _ in range(8 + 12 * taste):
            own = 60 * taste + 2 * int(30 * rng.random() ** 1.5) + (day >= 50)
            if len(mine) > 1 and rng.random() < 0.3 and mine[-2] % 2 == (day >= 50):
                own = mine[-2]
            mine.append(own)
            rows.append((user, own, 1_600_000_000 + day * DAY_S))
            day += int(rng.random() < 0.5)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def arrays(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    frame = frame.sort("user_id", "timestamp", maintain_order=True)
    lengths = frame.group_by("user_id", maintain_order=True).len()["len"].cast(pl.Int64).to_numpy()
    return (
        frame["item_id"].to_numpy(),
        np.concatenate(([0], np.cumsum(lengths))),
        frame["timestamp"].to_numpy(),
    )


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    return two_tastes()


@pytest.fixture(scope="module")
def made(log: pl.DataFrame) -> pl.DataFrame:
    return like(log, clusters=4, seed=3)


def repeats(frame: pl.DataFrame) -> float:
    return 1 - frame.select("user_id", "item_id").unique().height / frame.height


def test_lengths_repeats_and_popularity_are_those_of_the_log(log: pl.DataFrame, made: pl.DataFrame) -> None:
    lengths = made.group_by("user_id").len()["len"]
    assert set(lengths) == {8, 20}
    assert len(lengths) == 300
    assert (lengths == 20).mean() == pytest.approx(0.5, abs=0.1)
    assert repeats(made) == pytest.approx(repeats(log), abs=0.05)
    shares = [np.sort(f["item_id"].value_counts()["count"].to_numpy())[::-1] / f.height for f in (log, made)]
    assert len(shares[1]) > 110
    assert np.abs(shares[0][:110] - shares[1][:110]).max() < 0.015


def test_times_lie_in_the_logs_own_and_have_its_gaps(log: pl.DataFrame, made: pl.DataFrame) -> None:
    assert log["timestamp"].min() <= made["timestamp"].min()  # type: ignore[operator]
    assert made["timestamp"].max() <= log["timestamp"].max()  # type: ignore[operator]
    gap = pl.col("timestamp").diff().over("user_id")
    gaps = [frame.select(gap)["timestamp"].drop_nulls() for frame in (log, made)]
    assert gaps[1].min() == 0
    assert (gaps[1] == 0).mean() == pytest.approx((gaps[0] == 0).mean(), abs=0.03)
    assert set(gaps[1].unique()) == {0, DAY_S}


def test_users_have_one_taste_each_and_it_goes_with_their_length(made: pl.DataFrame) -> None:
    # Which items belong together shows in who has them: each of the two parts is of one length.
    table = made.join(made.group_by("user_id").len(), on="user_id")
    share = table.group_by("item_id").agg((pl.col("len") == 20).mean())["len"].to_numpy()
    assert ((share < 0.2) | (share > 0.8)).mean() > 0.9
    assert (share > 0.5).sum() == pytest.approx(60, abs=3)


def test_items_come_and_go_when_they_did(made: pl.DataFrame) -> None:
    # At day 50 one half of the items goes out of use and the other begins.
    late = pl.col("timestamp") >= 1_600_000_000 + 50 * DAY_S
    share = made.group_by("item_id").agg(late.mean())["timestamp"].to_numpy()
    assert ((share < 0.2) | (share > 0.8)).mean() > 0.9


def test_no_three_events_in_a_row_are_those_of_one_or_two_users(log: pl.DataFrame) -> None:
    items, offsets, times = arrays(log)
    have = defaultdict(set)
    for user, (a, b) in enumerate(pairwise(offsets)):
        for place in range(a, b - 2):
            have[tuple(items[place : place + 3].tolist())].add(user)
    rare = {triple for triple, users in have.items() if len(users) < LEAST}
    assert len(rare) > 1_000
    rng = np.random.default_rng(0)
    habits = learn_habits(items, offsets, times, 120, 4, rng)
    lengths = np.full(400, 15)
    cluster = rng.choice(habits.cluster, 400)
    bins = np.zeros(6_000, dtype=np.int64)
    forbidding = RareTriples(items, np.repeat(np.arange(300), np.diff(offsets)), 120)
    walked = walk_by_habit(habits, forbidding, cluster, lengths, bins, rng).reshape(400, 15)
    found = [tuple(row[place : place + 3].tolist()) for row in walked for place in range(13)]
    assert not rare & set(found)
    assert len({triple for triple in found if len(have[triple]) >= LEAST}) > 20


def test_triples_are_counted_by_users() -> None:
    # 0 1 2 of three users, 1 2 3 of two, 3 3 3 twice of one.
    items = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3])
    user = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    rare = RareTriples(items, user, 4)
    asked = np.array([[0, 1, 2], [1, 2, 3], [3, 3, 3], [2, 2, 2], [0, 1, 3]]).T
    assert rare.hold(*asked).tolist() == [False, True, True, False, False]


def test_steps_that_many_users_take_are_taken() -> None:
    log = markov_log(600, 40, branching=2, decay=0.5, noise=0.1, seed=2)
    assert log.successors is not None
    items, offsets, _ = arrays(log.frame)
    rng = np.random.default_rng(1)
    habits = learn_habits(items, offsets, None, 40, 2, rng)
    rare = RareTriples(items, np.repeat(np.arange(600), np.diff(offsets)), 40)
    lengths = np.full(300, 20)
    walked = walk_by_habit(
        habits, rare, np.zeros(300, dtype=np.int64), lengths, np.zeros(6_000, np.int64), rng
    )
    walked = walked.reshape(300, 20)
    follows = (log.successors[walked[:, :-1]] == walked[:, 1:, None]).any(axis=2).mean()
    # Of the log 90%; by chance 5% follow.
    assert follows > 0.5


def test_a_user_that_may_take_no_step_ends_there() -> None:
    # Every triple of four users is theirs alone, so that made users have two events.
    items = np.array([0, 1, 2, 0, 2, 1, 1, 0, 2, 1, 2, 0])
    made = like(
        pl.DataFrame({"user_id": np.repeat([1, 2, 3, 4], 3), "item_id": items, "timestamp": range(12)})
    )
    triples = {tuple(group["item_id"]) for _, group in made.group_by("user_id") if group.height > 2}
    assert made.height >= 8
    assert len(triples) <= 2  # of the six orders only the two that nobody has are left


def test_the_seed_decides_everything(log: pl.DataFrame, made: pl.DataFrame) -> None:
    assert like(log, clusters=4, seed=3).equals(made)
    assert not like(log, clusters=4, seed=4).equals(made)


def test_a_log_of_order_alone_has_places(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    two_tastes(users=40).select("user_id", "item_id").write_csv(path)
    made = like(path, users=7, time_unit="order")
    assert made.columns == ["user_id", "item_id", "position"]
    assert made["user_id"].unique().to_list() == list(range(7))
    places = made.group_by("user_id", maintain_order=True).agg("position")["position"].to_list()
    assert all(own == list(range(len(own))) for own in places)


@pytest.mark.parametrize(
    "options", [{"users": 0}, {"clusters": 0}, {"seed": -1}, {"users": 1.5}, {"seed": True}]
)
def test_numbers_out_of_range_are_refused(log: pl.DataFrame, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ArgumentError, match=f"{name}=.* must be a whole number of at least"):
        like(log, **options)


def test_unknown_options_and_logs_of_too_few_users_are_refused(log: pl.DataFrame) -> None:
    with pytest.raises(ArgumentError, match="user_colum"):
        like(log, user_colum="u")  # type: ignore[call-arg]
    with pytest.raises(DataError, match="has 2 users"):
        like(log.filter(pl.col("user_id") < 2))


def test_singular_vectors_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(5)
    # Two blocks and noise, so that the first directions stand apart from the rest.
    table = rng.random((30, 20)) < 0.1
    table[:10, :8] |= rng.random((10, 8)) < 0.8
    table[10:, 8:] |= rng.random((20, 12)) < 0.6
    table[np.arange(30), np.arange(30) % 20] = True
    users, items = np.nonzero(table)
    scaled = table / np.sqrt(np.outer(table.sum(axis=1), table.sum(axis=0)))
    left, values, _ = np.linalg.svd(scaled)
    of_users, of_items = singular_vectors(users, items, (30, 20), 1, rng)
    assert values[0] == pytest.approx(1)  # popularity, which is left out
    cosine = abs(of_users[:, 0] @ np.sign(left[:, 1])) / 30
    assert cosine == 1
    assert np.array_equal(np.abs(of_items), np.ones((20, 1)))


def test_clusters_are_found_and_small_ones_join_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [9.0, 2.5]])
    sizes = [30, 40, 50, 2]
    points = np.repeat(centres, sizes, axis=0) + rng.normal(size=(122, 2)) / 10
    own = k_means(points, 4, rng, least=3)
    truth = np.repeat([0, 1, 2, 1], sizes)
    assert len(np.unique(own)) == 3
    assert all(len(np.unique(own[truth == c])) == 1 for c in range(3))
    assert np.unique(k_means(points[:2], 4, rng, least=3)).tolist() == [0]


def test_buckets_are_powers_of_two() -> None:
    assert bucket_of(np.array([0, 1, 2, 3, 4, 7, 8, 1023, 1024])).tolist() == [0, 1, 2, 2, 3, 3, 4, 10, 11]
