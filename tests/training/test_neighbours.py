"""What new items start from, on sequences small enough to count by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.training import neighbours
from recsys.training.neighbours import Bags, neighbour_bags

# The last two of each user are held out. 5 and 6 are new, 7 stands beside new items alone, 8 in no training.
SEQUENCES = {0: [0, 1, 5, 2, 5, 3, 8], 1: [6, 0, 6, 1, 6], 2: [7, 6, 2, 2], 3: [4, 4, 7, 5]}
NEW = [5, 6, 7, 8]


@pytest.fixture(params=[None, 2])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SequenceStore:
    """In one piece, and in shards."""
    rows = [
        (user, item, 100 * place) for user, items in SEQUENCES.items() for place, item in enumerate(items)
    ]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    log.write_parquet(tmp_path / "log.parquet")
    return prepare(tmp_path / "log.parquet", tmp_path / "data", shards=request.param)


def _known(store: SequenceStore) -> np.ndarray:
    known = np.ones(store.n_items, dtype=bool)
    known[NEW] = False
    return known


def _as_shares(bags: Bags) -> dict[int, dict[int, float]]:
    return {
        int(item): {
            int(row): float(weight)
            for row, weight in zip(bags.rows[first:last], bags.weights[first:last], strict=True)
        }
        for item, first, last in zip(bags.items, bags.offsets[:-1], bags.offsets[1:], strict=True)
    }


@pytest.mark.parametrize("block", [1, 2, 2**22])
def test_neighbours_count_as_often_as_they_stand_there(
    store: SequenceStore, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    first, second = neighbour_bags(store, _known(store), window=1)
    # In training: 0 1 5 2 5, then 6 0 6, then 7 6, and 4 4.
    assert _as_shares(first) == {
        5: {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3)},
        6: {0: pytest.approx(1.0)},
    }
    # 7 begins at 6, which has begun by then; 8 has no training event.
    assert _as_shares(second) == {7: {6: 1.0}}
    wider, _ = neighbour_bags(store, _known(store), window=2)
    assert _as_shares(wider)[5] == {0: 0.25, 1: 0.25, 2: 0.5}


def test_one_pass_leaves_those_without_known_neighbours(store: SequenceStore) -> None:
    assert [list(bags.items) for bags in neighbour_bags(store, _known(store), passes=1)] == [[5, 6]]


def test_nothing_new_needs_nothing(store: SequenceStore) -> None:
    assert neighbour_bags(store, np.ones(store.n_items, dtype=bool)) == []
