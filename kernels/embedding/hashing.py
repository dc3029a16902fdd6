"""Items without a row of their own: the sum of a few rows of one shared table, chosen by hash functions.

Source: Uber's bag of hashed words with the layer shared between input and output (arXiv:2401.09572), and
hash embeddings without importance weights (Svenstrup et al. 2017, arXiv:1709.03933).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.kernels.shared.random_words import ATTEMPT_STEP, mix, row_keys, scaled, signed

__all__ = ["HashedTable", "Items", "item_count", "rows_of"]

SEED = 20_240_109
"""Of the hash functions: fixed, since a saved table means nothing under others."""


@dataclass(frozen=True, slots=True, eq=False)
class HashedTable:
    """V item vectors kept as (R, d) rows: item v is the sum over j of weight[hash_j(v)].

    Attributes:
        weight: (R + extra, d).
        n_items: V.
        n_hashes: hash functions, at least 1. An item may meet the same row twice.
        n_extra: items beyond V (a mask token); item V + e has row R + e to itself, taken n_hashes times.
    """

    weight: Tensor
    n_items: int
    n_hashes: int
    n_extra: int = 0

    def rows(self, ids: Tensor) -> Tensor:
        """The rows of items: int64, one more axis of n_hashes. Computed: nothing of size V is kept."""
        buckets = self.weight.shape[0] - self.n_extra
        steps = torch.arange(1, self.n_hashes + 1, dtype=torch.int64, device=ids.device)
        words = mix(row_keys(SEED, ids)[..., None] + steps * signed(ATTEMPT_STEP))
        rows = scaled(words, buckets)[0]
        if self.n_extra:
            beyond = (ids - self.n_items + buckets)[..., None]
            rows = torch.where(beyond >= buckets, beyond, rows)
        return rows


Items = Tensor | HashedTable
"""Item vectors: one row per item, (V or more, d), or hashed."""


def rows_of(items: Items, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The table, and which of its rows make up each item: ids as they are, or with one more axis."""
    if isinstance(items, HashedTable):
        return items.weight, items.rows(ids)
    return items, ids


def item_count(items: Items) -> int:
    """V."""
    return items.n_items if isinstance(items, HashedTable) else items.shape[0]
