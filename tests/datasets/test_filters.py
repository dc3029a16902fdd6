"""The k-core keeps exactly the largest set in which everybody has enough events."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from recsys.datasets.preparing.filters import k_core
from recsys.errors import ArgumentError

EVENTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60)


def by_removal(events: list[tuple[int, int]], min_user: int, min_item: int) -> list[int]:
    """Remove one offending event after the other."""
    kept = list(range(len(events)))
    while True:
        users = Counter(events[place][0] for place in kept)
        items = Counter(events[place][1] for place in kept)
        bad = [
            place
            for place in kept
            if users[events[place][0]] < min_user or items[events[place][1]] < min_item
        ]
        if not bad:
            return kept
        kept.remove(bad[-1])


@given(EVENTS, st.integers(0, 4), st.integers(0, 4))
def test_the_core_is_the_one_that_removing_one_by_one_leaves(
    events: list[tuple[int, int]], min_user: int, min_item: int
) -> None:
    users = np.array([user for user, _ in events], dtype=np.int32)
    items = np.array([item for _, item in events], dtype=np.int32)
    core = k_core(users, items, min_user_events=min_user, min_item_events=min_item)
    expected = by_removal(events, min_user, min_item)
    assert np.flatnonzero(core.keep).tolist() == expected
    assert core.removed_events == len(events) - len(expected)
    assert core.removed_users == len(set(users)) - len(set(users[expected]))
    assert core.removed_items == len(set(items)) - len(set(items[expected]))


def test_removals_go_on_until_nothing_changes() -> None:
    # User 2's only other event is on item 9, which falls; then user 2 falls, then item 1 is short by one.
    users = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32)
    items = np.array([0, 1, 0, 0, 1, 9], dtype=np.int32)
    core = k_core(users, items, min_user_events=2, min_item_events=2)
    assert core.keep.tolist() == [False, False, True, True, False, False]
    assert (core.rounds, core.removed_events, core.removed_users, core.removed_items) == (4, 4, 2, 2)


def test_nothing_is_removed_by_default() -> None:
    core = k_core(np.array([0, 1], dtype=np.int32), np.array([0, 1], dtype=np.int32))
    assert core.keep.all()
    assert core.rounds == 0


def test_a_negative_minimum_is_refused() -> None:
    none = np.array([], dtype=np.int32)
    with pytest.raises(ArgumentError, match="min_item_events=-1"):
        k_core(none, none, min_item_events=-1)
