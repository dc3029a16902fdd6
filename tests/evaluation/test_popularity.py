from typing import Any

import pytest

from recsys.evaluation.popularity import popularity_ranks
from recsys.evaluation.protocol import Ties
from recsys.evaluation.targets import select_targets


def test_ties_are_counted_against_the_baseline_by_hand(make_store: Any) -> None:
    # Training counts: item 0: 2, items 1, 2, 3: 1, items 4, 5: 0.
    store = make_store([([0, 1], [2], [3]), ([0, 2, 3], [5], [4])], n_items=6)
    ranks = popularity_ranks(store, select_targets(store))
    assert ranks.kept.tolist() == [4, 6]
    # The first user has seen 0, 1, 2; the second 0, 2, 3, 5: items 1 and 4 are left.
    assert ranks.removed.tolist() == [1, 2]


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "average"])
@pytest.mark.parametrize("mode", ["next", "all"])
def test_ranks_are_those_of_counting_item_by_item(
    random_store: Any, ties: Ties, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.evaluation.spans.EVENTS_PER_CHUNK", 20)
    for seed in range(10):
        store = random_store(seed, segment=3)
        targets = select_targets(store, "test", mode)
        counts = store.item_counts()
        ranks = popularity_ranks(store, targets, ties=ties)
        for row in range(targets.n_rows):
            target = targets.target[row]
            seen = set(store.items[targets.history_start[row] : targets.history_end[row]].tolist())
            for found, others in (
                (ranks.kept[row], set(range(store.n_items)) - {target}),
                (ranks.removed[row], set(range(store.n_items)) - seen - {target}),
            ):
                greater = sum(counts[i] > counts[target] for i in others)
                equal = sum(counts[i] == counts[target] for i in others)
                share = {"pessimistic": 1.0, "optimistic": 0.0, "average": 0.5}[ties]
                assert found == 1 + greater + share * equal
