"""Which bags hold each row of a table: the transposed form, along which gradients flow back.

A row that thousands of bags hold would be one long sum by one program: it is cut into pieces of `PIECE`
entries, each a bag of its own, and a row is a bag of its pieces. Where the cuts lie follows from the row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PIECE", "Transposed", "transpose"]

PIECE = 1024
"""Entries of a piece: a part of a percent more sums, and the longest chain of one program."""


@dataclass(frozen=True, slots=True, eq=False)
class Transposed:
    """The bags of each row, rows in order and a row's bags in theirs; long ones in pieces.

    Attributes:
        piece_offsets: (P + 1,) int64: the entries of each piece.
        bags: (T,) int32 bag of each entry.
        weights: (T,) float32 or None.
        row_offsets: (C + 1,) int64: the pieces of each row.
        n_bags: M.
    """

    piece_offsets: Tensor
    bags: Tensor
    weights: Tensor | None
    row_offsets: Tensor
    n_bags: int

    @property
    def n_rows(self) -> int:
        """C."""
        return len(self.row_offsets) - 1

    def to(self, device: torch.device) -> "Transposed":
        """The same on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return Transposed(
            self.piece_offsets.to(device),
            self.bags.to(device),
            weights,
            self.row_offsets.to(device),
            self.n_bags,
        )


def transpose(offsets: Tensor, rows: Tensor, weights: Tensor | None, n_rows: int) -> Transposed:
    """Group the entries of bags by row; never waits for a device.

    Args:
        offsets: (M + 1,) int32 or int64.
        rows: (T,) int32 or int64 in [0, n_rows).
        weights: (T,) float32 or None.
        n_rows: C.
    """
    entries, device = len(rows), rows.device
    order = rows.sort(stable=True).indices
    bags = torch.searchsorted(offsets.long(), torch.arange(entries, device=device), right=True) - 1
    counts = torch.zeros(n_rows, dtype=torch.int64, device=device)
    counts.index_add_(0, rows.long(), torch.ones_like(rows, dtype=torch.int64))
    starts, pieces = _running(counts), _running(-(-counts // PIECE))
    # As many pieces as there can be; those beyond the last one are empty.
    numbers = torch.arange(entries // PIECE + n_rows + 1, device=device)
    row = torch.searchsorted(pieces, numbers, right=True) - 1
    begins = starts[row] + (numbers - pieces[row]) * PIECE
    return Transposed(
        torch.where(row < n_rows, begins, entries),
        bags[order].int(),
        None if weights is None else weights[order],
        pieces,
        len(offsets) - 1,
    )


def _running(counts: Tensor) -> Tensor:
    return torch.cat((counts.new_zeros(1), counts.cumsum(0)))
