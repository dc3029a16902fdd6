from typing import Any

import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.targets import select_targets


@pytest.fixture
def store(make_store: Any) -> Any:
    return make_store(
        [
            ([1, 2], [3], [4, 2, 4]),  # 0: a repeat of 2 and a second 4 in the test part
            ([5], [], []),  # 1: no test event
            ([], [], [6]),  # 2: no history
            ([7], [7], [7]),  # 3: the test item is seen
            ([], [0], [1]),  # 4: the history of the test part is the validation event
        ],
        n_items=8,
    )


def test_next_takes_the_first_event_of_the_segment_and_everything_before_as_history(store: Any) -> None:
    rows = select_targets(store, "test")
    assert rows.user.tolist() == [0, 3, 4]
    assert rows.target.tolist() == [4, 7, 1]
    histories = [store.items[a:b].tolist() for a, b in zip(rows.history_start, rows.history_end, strict=True)]
    assert histories == [[1, 2, 3], [7, 7], [0]]
    assert store.items[rows.request_position].tolist() == [4, 7, 1]
    assert rows.row_offsets.tolist() == [0, 1, 2, 3]
    assert rows.repeated.tolist() == [False, True, False]


def test_all_takes_each_distinct_item_once_in_order_of_first_occurrence(store: Any) -> None:
    rows = select_targets(store, "test", "all")
    assert rows.user.tolist() == [0, 0, 3, 4]
    assert rows.target.tolist() == [4, 2, 7, 1]
    assert rows.row_offsets.tolist() == [0, 2, 3, 4]
    assert rows.request_position.tolist()[0] == rows.request_position.tolist()[1] == 3
    assert rows.first_rows.tolist() == [0, 2, 3]


def test_the_validation_segment_has_training_events_alone_as_history(store: Any) -> None:
    rows = select_targets(store, "valid")
    assert rows.user.tolist() == [0, 3]
    assert rows.target.tolist() == [3, 7]
    assert [store.items[a:b].tolist() for a, b in zip(rows.history_start, rows.history_end, strict=True)] == [
        [1, 2],
        [7],
    ]
    assert rows.without_history == 1


def test_users_who_are_not_counted_are_counted_apart(store: Any) -> None:
    rows = select_targets(store, "test", min_events=3)
    assert rows.user.tolist() == [0, 3]
    assert (rows.without_segment, rows.below_min_events, rows.without_history) == (1, 2, 0)
    assert select_targets(store, "test").without_history == 1


def test_seen_targets_can_be_dropped_and_their_users_with_them(store: Any) -> None:
    rows = select_targets(store, "test", "all", drop_seen_targets=True)
    assert rows.user.tolist() == [0, 4]
    assert rows.target.tolist() == [4, 1]
    assert (rows.seen_targets_dropped, rows.users_dropped_seen) == (2, 1)
    assert rows.row_offsets.tolist() == [0, 1, 2]


def test_a_dropped_next_target_is_not_replaced_by_the_following_event(make_store: Any) -> None:
    rows = select_targets(make_store([([1], [2], [1, 3])], 4), "test", drop_seen_targets=True)
    assert rows.n_rows == 0
    assert rows.n_users == 0


def test_chosen_users_alone_are_considered(store: Any) -> None:
    rows = select_targets(store, "test", users=np.array([4, 1, 0]))
    assert rows.user.tolist() == [0, 4]
    assert rows.without_segment == 1


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("split='train'", {"split": "train"}),
        ("targets='last'", {"targets": "last"}),
        (r"indices in \[0, 5\)", {"users": np.array([5])}),
        ("twice", {"users": np.array([1, 1])}),
    ],
)
def test_bad_options_are_refused(store: Any, words: str, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=words):
        select_targets(store, **options)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("mode", ["next", "all"])
def test_no_history_reaches_into_its_segment_or_another_user(
    random_store: Any, split: Any, mode: Any
) -> None:
    for seed in range(20):
        store = random_store(seed, segment=4)
        rows = select_targets(store, split, mode)
        start = store.valid_start if split == "valid" else store.test_start
        assert rows.n_rows > 0
        assert np.all(rows.history_start == store.offsets[rows.user])
        assert np.all(rows.history_end == start[rows.user])
        assert np.all(rows.history_end <= rows.request_position)
        assert np.all(rows.history_start < rows.history_end)
        for row in range(rows.n_rows):
            user = rows.user[row]
            end = store.test_start[user] if split == "valid" else store.offsets[user + 1]
            assert rows.target[row] in store.items[start[user] : end]
            history = store.items[rows.history_start[row] : rows.history_end[row]]
            assert rows.repeated[row] == (rows.target[row] in history)
