"""Checks of look-ups' arguments; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError

__all__ = ["check_ids", "check_range", "check_table"]


def check_ids(ids: Tensor) -> None:
    """Refuse ids that are not int64 (M,).

    Raises:
        ArgumentError: see above.
    """
    if ids.dim() != 1 or ids.dtype != torch.int64:
        raise ArgumentError(f"item_vectors: ids is {ids.dtype} {tuple(ids.shape)}, want int64 (M,)")


def check_table(table: Tensor) -> None:
    """Refuse a table that is not floating (R, d).

    Raises:
        ArgumentError: see above.
    """
    if table.dim() != 2 or not table.is_floating_point():
        raise ArgumentError(
            f"item_vectors: table is {table.dtype} {tuple(table.shape)}, want floating (R, d)"
        )


def check_range(lowest: int, highest: int, rows: int) -> None:
    """Refuse ids of which some is not in [0, rows).

    Raises:
        ArgumentError: see above.
    """
    if lowest < 0 or highest >= rows:
        raise ArgumentError(
            f"embedding: ids holds {lowest if lowest < 0 else highest} and the table has {rows} rows, "
            "want ids in [0, rows)"
        )
