"""Exact ranks and top-k on the CPU: a product over a chunk of rows, then a selection pass while it is warm.

Row chunks are always multiples of 16 rows, short ones padded: BLAS picks another code path for a few rows,
whose scores differ in the last bits.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged

# Scores held at once: 16 MiB of float32.
CHUNK_SCORES = 1 << 22
ROW_MULTIPLE = 16


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Count the scores above and level with the target's; see the public function."""
    counts = torch.empty(4, len(hidden), dtype=torch.int64)
    for rows, scores in _score_chunks(hidden, item_weight):
        target = targets[rows, None]
        at_target = scores.gather(1, target)
        above = (scores > at_target).sum(1)
        level = (scores == at_target).sum(1) - 1
        counts[0, rows], counts[1, rows] = above, level
        if exclude is not None:
            # Few items are excluded: take them back out of the counts instead of masking the catalog.
            row, ids = _distinct_excluded(exclude, rows)
            other = ids != target[row, 0]
            row, ids = row[other], ids[other]
            excluded, bar = scores[row, ids], at_target[row, 0]
            above = above - torch.bincount(row, excluded > bar, minlength=len(above)).long()
            level = level - torch.bincount(row, excluded == bar, minlength=len(level)).long()
        counts[2, rows], counts[3, rows] = above, level
    return _rank(counts[0], counts[1], ties), _rank(counts[2], counts[3], ties)


def top_k(
    hidden: Tensor, item_weight: Tensor, k: int, exclude: Jagged | None, *, candidates: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Select by threshold, then order by (score descending, id ascending); see the public function."""
    catalog = None if candidates is None else candidates.unique()
    weight = item_weight if catalog is None else item_weight[catalog]
    dtype = torch.float32 if hidden.dtype in (torch.bfloat16, torch.float16) else hidden.dtype
    best = torch.full((len(hidden), k), float("-inf"), dtype=dtype)
    ids = torch.full((len(hidden), k), -1, dtype=torch.int64)
    taken = min(k, len(weight))
    if not taken:
        return best.to(hidden.dtype), ids
    for rows, scores in _score_chunks(hidden, weight):
        if exclude is not None:
            row, items = _distinct_excluded(exclude, rows)
            if catalog is not None:
                place = torch.searchsorted(catalog, items).clamp(max=len(catalog) - 1)
                inside = catalog[place] == items
                row, items = row[inside], place[inside]
            scores[row, items] = float("-inf")
        values, places = _select(scores, taken)
        names = places if catalog is None else catalog[places]
        gone = values == float("-inf")
        best[rows, :taken] = values
        ids[rows, :taken] = names.masked_fill(gone, -1)
    return best.to(hidden.dtype), ids


def _select(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first k of each row by (score descending, column ascending)."""
    values, places = scores.topk(k, dim=1)
    threshold = values[:, -1:]
    # topk breaks ties as it likes; where more scores are level with the last than fit, choose anew.
    crowded = ((scores >= threshold).sum(1) > k).nonzero()[:, 0]
    if len(crowded):
        ordered = scores[crowded].argsort(dim=1, descending=True, stable=True)[:, :k]
        places[crowded] = ordered
        values[crowded] = scores[crowded].gather(1, ordered)
    places, by_place = places.sort(dim=1)
    values, by_value = values.gather(1, by_place).sort(dim=1, descending=True, stable=True)
    return values, places.gather(1, by_value)


def _score_chunks(hidden: Tensor, item_weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of rows with their scores, which the consumer may overwrite.

    Raises:
        ArgumentError: a score is NaN or infinite.
    """
    narrow = hidden.dtype in (torch.bfloat16, torch.float16)
    h, w = (hidden.float(), item_weight.float()) if narrow else (hidden, item_weight)
    rows = max(ROW_MULTIPLE, CHUNK_SCORES // len(w) // ROW_MULTIPLE * ROW_MULTIPLE)
    for start in range(0, len(h), rows):
        part = h[start : start + rows]
        short = -len(part) % ROW_MULTIPLE
        padded = torch.nn.functional.pad(part, (0, 0, 0, short)) if short else part
        scores = (padded @ w.T)[: len(part)]
        if not bool(torch.isfinite(scores.sum())) and not bool(torch.isfinite(scores).all()):
            raise ArgumentError(NOT_FINITE)
        yield slice(start, start + len(part)), scores


def _distinct_excluded(exclude: Jagged, rows: slice) -> tuple[Tensor, Tensor]:
    """(row within the chunk, item) of each distinct exclusion of some rows."""
    ids, offsets = exclude
    bounds = offsets[rows.start : rows.stop + 1]
    items = ids[int(bounds[0]) : int(bounds[-1])]
    row = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
    if not len(items):
        return row, items
    width = int(items.max()) + 1
    keys = (row * width + items).unique()
    return keys // width, keys % width


def _rank(above: Tensor, level: Tensor, ties: str) -> Tensor:
    if ties == "optimistic":
        return above + 1
    if ties == "pessimistic":
        return above + level + 1
    return above + 1 + level.double() / 2
