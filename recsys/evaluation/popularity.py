"""The baseline that every model must beat: all users get the most popular items.

Popularity has massive ties, so the tie rule decides much of its figure: it is the model's own rule.
"""

from typing import NamedTuple

import numpy as np

from recsys.evaluation.metrics import Ranks
from recsys.evaluation.protocol import Ties
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets, PreparedLog


class PopularityRanks(NamedTuple):
    """1-based ranks (R,) of the targets by training count; int64, float64 for ties="average"."""

    kept: Ranks
    """Among all items."""

    removed: Ranks
    """Among all items but those of the row's history; the target stays a candidate."""


def popularity_ranks(
    store: PreparedLog, targets: EvaluationTargets, *, ties: Ties = "pessimistic"
) -> PopularityRanks:
    """Rank the targets by the number of training events of each item.

    Exact: an item's rank in the whole catalog follows from the sorted counts, and the rank without seen
    items from that minus the history's items that count more, or the same.

    Args:
        store: the prepared log.
        targets: the rows.
        ties: "pessimistic", "optimistic" or "average".
    """
    from recsys.kernels.shared.histories import items_ahead

    counts = np.asarray(store.item_counts(), dtype=np.int64)
    ordered = np.sort(counts)
    wanted = counts[targets.target]
    greater = len(ordered) - np.searchsorted(ordered, wanted, side="right")
    equal = len(ordered) - np.searchsorted(ordered, wanted, side="left") - greater - 1
    seen_greater, seen_equal = items_ahead(
        store.items, targets.history_start, targets.history_end, counts, targets.target
    )
    return PopularityRanks(
        kept=combine_ranks(greater, equal, ties),
        removed=combine_ranks(greater - seen_greater, equal - seen_equal, ties),
    )


def combine_ranks(greater: Ints, equal: Ints, ties: Ties) -> Ranks:
    """1-based ranks from the numbers of competitors that score more and the same."""
    if ties == "pessimistic":
        return 1 + greater + equal
    if ties == "optimistic":
        return 1 + greater
    return 1 + greater + 0.5 * equal
