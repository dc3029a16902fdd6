"""Exact ranks on a GPU: scores are made a tile at a time and counted where they are made.

float32 scores are products in full precision, without tensor cores; narrow types are multiplied exactly and
added in float32. Configurations depend on type and width alone, so a row's scores have the same bits in any
batch. Each call reads one flag back from the device, at its end, to refuse scores that are not finite.
`triton_selection` has the k best.

Legend: B rows, V items, d width.
"""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged, rank_from_counts
from recsys.kernels.ranking.triton_plan import Excluded, Plan, entries_of, lists_of
from recsys.kernels.ranking.triton_rank import count_scores, score_targets
from recsys.kernels.ranking.triton_top_k_launch import top_k
from recsys.kernels.shared.launching import architecture, choose_config, launch

__all__ = ["count", "rank_of_target", "top_k"]


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Count the scores above and level with the target's; arguments as in the public function."""
    counts, faults = count(hidden, item_weight, targets, exclude)
    above, level, above_excluded, level_excluded = counts
    broken, lost = torch.stack(((faults != 0.0).any(), (level < 1).any())).tolist()  # NaN is not 0 either
    if broken:
        raise ArgumentError(NOT_FINITE)
    if lost:
        raise ArgumentError("a target's score is not among its row's scores: targets must be ids in [0, V)")
    level = level - 1  # the target is level with itself
    kept = rank_from_counts(above, level, ties)
    return kept, rank_from_counts(above - above_excluded, level - level_excluded, ties)


def count(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None
) -> tuple[Tensor, Tensor]:
    """Return counts (4, B) int64 as `count_scores` and its faults, without waiting for them."""
    rows, (items, width) = len(hidden), item_weight.shape
    if rows == 0:
        return targets.new_zeros(4, 0), hidden.new_zeros(0, dtype=torch.float32)
    hidden, item_weight, targets = hidden.contiguous(), item_weight.contiguous(), targets.contiguous()
    dtype = str(hidden.dtype).removeprefix("torch.")
    config = choose_config("ranking", "rank", architecture(hidden), dtype=dtype, width=width)
    tile = config.blocks["BLOCK_B"], config.blocks["BLOCK_V"]
    excluded = None if exclude is None else Excluded.sort(*exclude, *tile, items, targets=targets)
    plan = Plan.cut(rows, items, *tile)
    thresholds = hidden.new_zeros(rows, dtype=torch.float32)
    launch(
        score_targets,
        plan.programs,
        config,
        hidden,
        item_weight,
        targets,
        thresholds,
        rows,
        items,
        plan.span,
        plan.row_blocks,
        D=width,
    )
    counts = targets.new_empty((4, plan.spans, rows), dtype=torch.int32)
    faults = thresholds.new_empty(plan.programs)
    launch(
        count_scores,
        plan.programs,
        config,
        hidden,
        item_weight,
        thresholds,
        *lists_of(excluded),
        counts,
        faults,
        rows,
        items,
        plan.span,
        plan.row_blocks,
        entries_of(excluded),
        plan.spans,
        D=width,
    )
    return counts.sum(1), faults
