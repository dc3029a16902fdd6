"""Checks of the arguments of sums by bags; each failure is one line that names the argument."""

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.bags.layout import Transposed
from recsys.kernels.shared.arguments import check_offsets, check_offsets_values

__all__ = ["check_bags"]

_NAME = "bag_vectors"


def check_bags(
    table: Tensor, offsets: Tensor, rows: Tensor, weights: Tensor | None, transposed: Transposed | None
) -> None:
    """Refuse arguments of `bag_vectors` that do not fit each other.

    Values are looked at on the CPU alone, where they are read for next to nothing.

    Raises:
        ArgumentError: see above.
    """
    if table.dim() != 2 or not table.is_floating_point():
        raise ArgumentError(f"{_NAME}: table is {table.dtype} {tuple(table.shape)}, want floating (C, d)")
    if rows.dim() != 1 or rows.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(f"{_NAME}: rows is {rows.dtype} {tuple(rows.shape)}, want int32 or int64 (T,)")
    if rows.device != table.device:
        raise ArgumentError(f"{_NAME}: rows is on {rows.device}, want {table.device} like the table")
    check_offsets(_NAME, offsets, table.device)
    if weights is not None:
        _check_weights(weights, rows)
    if transposed is not None and transposed.n_rows != table.shape[0]:
        raise ArgumentError(
            f"{_NAME}: transposed is of a table of {transposed.n_rows} rows, want "
            f"{table.shape[0]} like the table"
        )
    if transposed is not None and (transposed.n_bags, len(transposed.bags)) != (len(offsets) - 1, len(rows)):
        raise ArgumentError(
            f"{_NAME}: transposed is of {transposed.n_bags} bags with {len(transposed.bags)} entries, want "
            f"{len(offsets) - 1} with {len(rows)}"
        )
    if table.device.type == "cpu":
        check_offsets_values(_NAME, offsets, len(rows))
        _check_rows(rows, table.shape[0])


def _check_weights(weights: Tensor, rows: Tensor) -> None:
    if weights.shape != rows.shape or weights.dtype != torch.float32:
        raise ArgumentError(
            f"{_NAME}: weights is {weights.dtype} {tuple(weights.shape)}, want float32 {tuple(rows.shape)}"
        )
    if weights.device != rows.device:
        raise ArgumentError(f"{_NAME}: weights is on {weights.device}, want {rows.device} like the rows")
    if weights.requires_grad:
        raise ArgumentError(f"{_NAME}: weights asks for a gradient and has none here: detach it")


def _check_rows(rows: Tensor, count: int) -> None:
    if not len(rows):
        return
    lowest, highest = int(rows.numpy().min()), int(rows.numpy().max())
    if lowest < 0 or highest >= count:
        raise ArgumentError(
            f"{_NAME}: rows holds {lowest if lowest < 0 else highest} and the table has {count} rows, want "
            "[0, rows)"
        )
