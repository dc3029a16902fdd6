"""Proposed items scored in double precision, filtered and ordered: the definition."""

import torch
from torch import Tensor

__all__ = ["rescore"]


def rescore(
    queries: Tensor, vectors: Tensor, proposals: Tensor, permitted: Tensor, k: int, *, squared: bool
) -> tuple[Tensor, Tensor]:
    """Order each query's permitted proposals by (score rounded to float32 descending, id ascending).

    Args:
        queries: (b, d) floating.
        vectors: (V, d) floating.
        proposals: (b, m) int64 ids; -1 for none, repeats are harmless.
        permitted: (b, V) bool, what each query may get.
        k: answers per query.
        squared: score by -|q - v|^2 instead of q . v.

    Returns:
        scores (b, k) float32 and ids (b, k) int64; -inf and -1 at the end.
    """
    scores = torch.full((len(queries), k), -torch.inf)
    ids = torch.full((len(queries), k), -1, dtype=torch.int64)
    for row, query in enumerate(queries.double()):
        # `unique` sorts: the stable sort below then leaves equal scores in the order of their ids.
        items = proposals[row].unique()
        items = items[items >= 0]
        items = items[permitted[row, items]]
        gathered = vectors[items].double()
        exact = -(gathered - query).square().sum(dim=1) if squared else gathered @ query
        order = exact.float().argsort(descending=True, stable=True)[:k]
        scores[row, : len(order)], ids[row, : len(order)] = exact.float()[order], items[order]
    return scores, ids
