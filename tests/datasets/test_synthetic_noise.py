"""Made logs of rare items and of foreign events hold what they state."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.synthetic.noise import denoise_log
from recsys.datasets.synthetic.sparse import sparse_log
from recsys.errors import ArgumentError


def test_groups_of_a_sparse_log_follow_one_another() -> None:
    log = sparse_log(200, 800, groups=40, length=9, seed=3)
    assert log.frame.equals(sparse_log(200, 800, groups=40, length=9, seed=3).frame)
    assert not log.frame.equals(sparse_log(200, 800, groups=40, length=9, seed=4).frame)
    assert log.items is not None
    assert log.successors is not None
    group = log.items["group"].str.strip_prefix("group-").cast(pl.Int64).to_numpy()
    walks = group[log.frame["item_id"].to_numpy()].reshape(200, 9)
    assert (log.successors[walks[:, :-1], 0] == walks[:, 1:]).all()
    assert sorted(walks[:, 0].tolist()) == sorted(list(range(40)) * 5)
    # 35 training events of a group's 20 items: all but five of them have two.
    trained = log.frame["item_id"].to_numpy().reshape(200, 9)[:, :-2]
    assert np.bincount(np.bincount(trained.ravel(), minlength=800)).tolist() == [0, 200, 600]
    assert log.best["hr@10"] == pytest.approx(10 / 20)


def test_foreign_events_are_marked_and_never_alike() -> None:
    log = denoise_log(60, 200, groups=10, length=12, seed=5)
    assert log.frame.equals(denoise_log(60, 200, groups=10, length=12, seed=5).frame)
    assert log.foreign.sum() / (log.frame.height - 2 * 60) == pytest.approx(0.3, abs=0.03)
    group = (log.frame["item_id"].to_numpy() // 20).reshape(60, -1)
    foreign = log.foreign.to_numpy().reshape(60, -1)
    assert not foreign[:, [0, -2, -1]].any()
    for own, out in zip(group, foreign, strict=True):
        assert len(set(own[~out].tolist())) == 1
        assert own[0] not in own[out]
        assert len(set(own[out].tolist())) == out.sum()
    assert log.best == 0.5


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (sparse_log, {"n_users": 150}),
        (sparse_log, {"n_items": 250}),
        (sparse_log, {"groups": 1}),
        (sparse_log, {"length": 2}),
        (denoise_log, {"n_users": 0}),
        (denoise_log, {"n_items": 250, "groups": 20}),
        (denoise_log, {"length": 4}),
        (denoise_log, {"noise": 1.0}),
        (denoise_log, {"held_out": 1}),
        (denoise_log, {"groups": 4}),
    ],
)
def test_options_out_of_range_are_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"{next(iter(options))}="):
        make(**options)
