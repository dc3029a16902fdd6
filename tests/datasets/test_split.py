"""Splits never let a training event see the part that is tested."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given
from numpy.typing import NDArray

from recsys.datasets.splitting.leave_one_out import LeaveOneOut, leave_one_out
from recsys.datasets.splitting.parts import (
    TRAIN,
    VALID,
    SortedLog,
    SplitBounds,
    bounds_of,
    cold_events,
    describe,
    training_events,
)
from recsys.datasets.splitting.temporal import Temporal, TemporalCuts, temporal, temporal_cuts
from recsys.errors import ArgumentError, DataError

Ints = NDArray[np.int64]
SEQUENCES = st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=12), min_size=1, max_size=12)


def jagged(sequences: list[list[int]]) -> tuple[Ints, Ints]:
    """Offsets and rising times."""
    offsets = np.concatenate(([0], np.cumsum([len(times) for times in sequences]))).astype(np.int64)
    return offsets, np.concatenate([sorted(times) for times in sequences]).astype(np.int64)


def left_one_out(offsets: Ints, times: Ints | None) -> SplitBounds:
    parts = leave_one_out(SortedLog(offsets=offsets, timestamps=times), LeaveOneOut()).parts
    return bounds_of(parts, offsets, times)


def cut(offsets: Ints, times: Ints, cuts: TemporalCuts) -> SplitBounds:
    config = Temporal(valid_time=cuts.valid_time, test_time=cuts.test_time)
    return bounds_of(temporal(SortedLog(offsets=offsets, timestamps=times), config).parts, offsets, times)


def check_order(bounds: SplitBounds, offsets: Ints) -> None:
    assert (offsets[:-1] <= bounds.valid_start).all()
    assert (bounds.valid_start <= bounds.test_start).all()
    assert (bounds.test_start <= offsets[1:]).all()


@given(SEQUENCES)
def test_leave_one_out_tests_the_last_event_and_validates_on_the_one_before(
    sequences: list[list[int]],
) -> None:
    offsets, times = jagged(sequences)
    bounds = left_one_out(offsets, times)
    check_order(bounds, offsets)
    for user in range(len(sequences)):
        length = offsets[user + 1] - offsets[user]
        parts = (
            bounds.valid_start[user] - offsets[user],
            bounds.test_start[user] - bounds.valid_start[user],
            offsets[user + 1] - bounds.test_start[user],
        )
        assert parts == ((length - 2, 1, 1) if length >= 3 else (length, 0, 0))
        history = times[offsets[user] : bounds.test_start[user]]
        assert (history <= times[bounds.test_start[user] : offsets[user + 1]].min(initial=99)).all()


def test_the_tie_share_counts_tested_users_whose_last_two_events_are_simultaneous() -> None:
    offsets, times = jagged([[1, 5, 5], [1, 5, 6], [5, 5, 6], [2, 2, 2, 2], [7, 7]])
    assert left_one_out(offsets, times).tie_share == 0.5
    assert left_one_out(offsets, None).tie_share is None
    assert left_one_out(np.array([0, 2]), np.array([7, 7])).tie_share == 0.0


@given(SEQUENCES, st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_temporal_parts_do_not_overlap_in_time(
    sequences: list[list[int]], valid_fraction: float, test_fraction: float
) -> None:
    offsets, times = jagged(sequences)
    try:
        cuts = temporal_cuts(times, Temporal(valid_fraction=valid_fraction, test_fraction=test_fraction))
    except DataError:
        assume(False)
    bounds = cut(offsets, times, cuts)
    check_order(bounds, offsets)
    training = training_events(bounds, offsets)
    place = np.arange(len(times))
    user = np.repeat(np.arange(len(sequences)), np.diff(offsets))
    testing = place >= bounds.test_start[user]
    assert (times[training] < cuts.valid_time).all()
    assert (times[testing] >= cuts.test_time).all()
    middle = times[~training & ~testing]
    assert ((middle >= cuts.valid_time) & (middle < cuts.test_time)).all()
    assert bounds.tie_share == 0.0
    counts = describe(bounds, offsets)
    assert counts["train_events"] == training.sum()
    assert counts["test_events"] == testing.sum()
    assert counts["train_events"] + counts["valid_events"] + counts["test_events"] == len(times)


def test_the_fractions_are_those_of_events_not_of_time() -> None:
    times = np.concatenate([np.arange(80), np.arange(1_000, 1_020)]).astype(np.int64)
    cuts = temporal_cuts(times, Temporal())
    assert cuts == TemporalCuts(1_000, 1_010)


def test_events_at_a_cut_belong_to_the_later_part() -> None:
    times = np.array([1, 1, 2, 2, 2, 3], dtype=np.int64)
    bounds = cut(np.array([0, 6]), times, TemporalCuts(2, 3))
    assert (bounds.valid_start.tolist(), bounds.test_start.tolist()) == ([2], [5])


def test_explicit_cuts_are_taken_as_they_are() -> None:
    times = np.arange(10, dtype=np.int64)
    assert temporal_cuts(times, Temporal(valid_time=3, test_time=4)) == TemporalCuts(3, 4)


@pytest.mark.parametrize(
    "options",
    [
        {"valid_time": 5},
        {"test_time": 5},
        {"valid_time": 5, "test_time": 5},
        {"valid_fraction": 0.0},
        {"test_fraction": 0.0},
        {"valid_fraction": float("nan")},
        {"valid_fraction": 0.1, "valid_time": 5, "test_time": 6},
        {"test_fraction": -0.1},
        {"valid_fraction": 0.5, "test_fraction": 0.5},
    ],
)
def test_cuts_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ArgumentError):
        Temporal(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("times", "part"),
    [([5] * 10, "training"), ([1] * 8 + [2, 2], "validation"), ([1] * 5 + [2] * 5, "validation")],
)
def test_times_that_cannot_be_cut_are_refused(times: list[int], part: str) -> None:
    with pytest.raises(DataError, match=f"leaves no {part} event"):
        temporal_cuts(np.array(times, dtype=np.int64), Temporal())


@given(SEQUENCES, st.randoms(use_true_random=False))
def test_cold_events_are_those_of_items_that_never_train(sequences: list[list[int]], random: object) -> None:
    _, times = jagged(sequences)
    items = np.array([random.randrange(8) for _ in times], dtype=np.int32)  # type: ignore[attr-defined]
    parts = np.where(times < 10, TRAIN, VALID).astype(np.int8)
    known = {item for item, time in zip(items, times, strict=True) if time < 10}
    expected = [item not in known for item in items]
    assert cold_events(parts, items, 8).tolist() == expected
