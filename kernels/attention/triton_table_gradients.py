"""Gradients of the bias tables: rows that programs own, in a workspace of bounded size, added in order.

Legend: H heads, T time buckets, R relative places.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["TableGradients"]

MOST_FLOATS = 2**24
"""Entries of the workspace (64 MiB); tasks whose rows do not fit are launched in several parts."""


class TableGradients:
    """Hands out private rows to launches and sums them."""

    def __init__(self, like: Tensor, *tables: Tensor | None) -> None:
        """Take the tables, (H, T) and (H, R) or None; `like` gives the device."""
        self._totals = [
            None if x is None else torch.zeros(x.shape, dtype=torch.float32, device=like.device)
            for x in tables
        ]
        self._none = like.new_empty((0,), dtype=torch.float32)

    def chunks(
        self, first: int, last: int, group: int, parts: int = 1
    ) -> Iterator[tuple[int, int, tuple[Tensor | None, ...]]]:
        """Yield the tasks (first, last) of one launch after another with rows (programs, H, entries).

        Args:
            first: first task.
            last: the task after the last.
            group: tasks that a program takes.
            parts: programs that share a task.
        """
        row = sum(x.numel() for x in self._totals if x is not None)
        step = max(MOST_FLOATS // (row * parts), 1) * group if row else max(last - first, 1)
        for start in range(first, max(last, first + 1), step):
            end = min(start + step, last)
            programs = -(-(end - start) // group) * parts
            # Zeros: a program writes the entries that its tiles reach.
            rows = tuple(
                None if x is None else torch.zeros((programs, *x.shape), dtype=torch.float32, device=x.device)
                for x in self._totals
            )
            yield start, end, rows
            for total, row_ in zip(self._totals, rows, strict=True):
                if total is not None and row_ is not None:
                    total += row_.sum(0)

    def totals(self) -> tuple[Tensor, ...]:
        """Return the sums, and an empty tensor for no table."""
        return tuple(self._none.clone() if x is None else x for x in self._totals)
