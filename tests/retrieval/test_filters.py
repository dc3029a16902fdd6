import numpy as np
import pytest
import torch

from recsys.errors import ArgumentError
from recsys.retrieval.backends import Kind, choose_kind, known_kinds, low_recall_remedy, register_kind
from recsys.retrieval.filters import merge_filters


def test_exclusions_are_sorted_and_made_distinct_within_rows() -> None:
    filters = merge_filters(10, 3, (torch.tensor([5, 2, 5, 2]), torch.tensor([0, 3, 3, 4])))
    assert filters.ids.tolist() == [2, 5, 2]
    assert filters.offsets.tolist() == [0, 2, 2, 3]
    assert filters.candidates is None


def test_a_deny_list_alone_becomes_an_exclusion_of_every_row() -> None:
    filters = merge_filters(10, 2, (np.array([1]), np.array([0, 1, 1])), None, [3, 1, 3])
    assert filters.ids.tolist() == [1, 3, 1, 3]
    assert filters.offsets.tolist() == [0, 2, 4]


def test_a_deny_list_is_taken_out_of_the_allow_list() -> None:
    filters = merge_filters(10, 1, None, [7, 3, 3, 1], [3])
    assert filters.candidates is not None
    assert filters.candidates.tolist() == [1, 7]
    assert not filters.excludes


def test_a_long_deny_list_becomes_an_allow_list_of_the_rest() -> None:
    filters = merge_filters(2000, 1, None, None, np.arange(1990))
    assert filters.candidates is not None
    assert filters.candidates.tolist() == list(range(1990, 2000))


def test_permits_knows_rows_candidates_and_the_filler() -> None:
    filters = merge_filters(5, 2, (np.array([1, 4]), np.array([0, 1, 2])), [0, 1, 4])
    ids = np.array([[0, 1, 2, 4, -1], [0, 1, 2, 4, -1]])
    assert filters.permits(ids).tolist() == [
        [True, False, False, True, False],
        [True, True, False, False, False],
    ]
    assert filters.permits(ids[1:], np.array([1])).tolist() == [[True, True, False, False, False]]


def test_a_kind_can_be_added_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.retrieval.backends._KINDS", {"exact": Kind("recsys.retrieval.exact")})
    register_kind("other", "recsys.retrieval.exact", raise_recall="luck")
    assert low_recall_remedy("other") == "raise luck with --set, or take --kind flat"
    assert low_recall_remedy("exact") == "take --kind flat"
    assert known_kinds() == ("exact", "other", "auto")
    assert choose_kind("other", torch.eye(2)) == ("other", "asked for")
    with pytest.raises(ArgumentError, match="taken"):
        register_kind("other", "recsys.retrieval.exact")
