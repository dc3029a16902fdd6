import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.evaluation.spans import chunk_rows, distinct_items, expand_spans, span_contains

ITEMS = np.array([3, 1, 3, 0, 1, 1], dtype=np.int32)


def spans(*pairs: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs], dtype=np.int64)


def test_positions_of_spans_come_one_span_after_the_other() -> None:
    positions, offsets = expand_spans(*spans((4, 6), (2, 2), (0, 3)))
    assert positions.tolist() == [4, 5, 0, 1, 2]
    assert offsets.tolist() == [0, 2, 2, 5]


def test_distinct_items_are_ascending_within_each_span() -> None:
    ids, offsets = distinct_items(ITEMS, *spans((0, 3), (1, 1), (3, 6)), 4)
    assert ids.tolist() == [1, 3, 0, 1]
    assert offsets.tolist() == [0, 2, 2, 4]


def test_no_spans_have_no_items() -> None:
    ids, offsets = distinct_items(ITEMS, *spans(), 4)
    assert ids.tolist() == []
    assert offsets.tolist() == [0]


def test_membership_is_found_in_the_span_only() -> None:
    found = span_contains(ITEMS, *spans((0, 3), (0, 3), (3, 3)), np.array([1, 0, 0]))
    assert found.tolist() == [True, False, False]


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20))
def test_chunks_cover_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    chunks = list(chunk_rows(np.array(lengths, dtype=np.int64), budget))
    covered = [row for rows in chunks for row in range(rows.start, rows.stop)]
    assert covered == list(range(len(lengths)))
    for rows in chunks:
        assert sum(lengths[rows]) <= budget or rows.stop - rows.start == 1
