"""Sums of a table's rows by bags: what many tags, words or other parts add to the vector of each item.

Read `reference` first, then `layout` (which bags hold a row), `autograd` and `cpu_sums` or `triton_sums`.

The gradient is the same operation: a row's gradient is the sum over the bags that hold it.
Legend: M bags, T entries of all bags, C rows of the table, d width, P pieces of long sums.
"""

from types import ModuleType

from torch import Tensor

from recsys.kernels.bags import reference
from recsys.kernels.bags.checks import check_bags
from recsys.kernels.bags.layout import Transposed, transpose
from recsys.kernels.shared.backends import BackendTable

__all__ = ["Transposed", "bag_vectors", "transpose"]


def _cpu() -> ModuleType:
    from recsys.kernels.bags import cpu

    return cpu


def _triton() -> ModuleType:
    from recsys.kernels.bags import triton

    return triton


BACKENDS = BackendTable[ModuleType]("bags", {"reference": lambda: reference, "cpu": _cpu, "triton": _triton})


def bag_vectors(
    table: Tensor,
    offsets: Tensor,
    rows: Tensor,
    weights: Tensor | None = None,
    *,
    transposed: Transposed | None = None,
    backend: str | None = None,
) -> Tensor:
    """Sum the rows of each bag, each times its weight.

    Args:
        table: (C, d) float32, float64, bfloat16 or float16.
        offsets: (M + 1,) int32 or int64: the entries of bag m are those from offsets[m] to offsets[m + 1].
        rows: (T,) int32 or int64 in [0, C); a bag may hold a row more than once.
        weights: (T,) float32, not differentiable; None for ones.
        transposed: `transpose` of the same bags, where they are used more than once; made for the backward
            pass where it is None.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        (M, d), dtype of the table; zeros for an empty bag. Differentiable once in the table.

    Raises:
        ArgumentError: an argument does not fit. On a GPU the values of `offsets` and `rows` go
            unread.

    Cost: O(T d + M d) forward; backward the same and O(C d).
    Numerics: sums are made in float32, a bag's in an order that it alone decides: the same bits in every run,
    among any other bags and on any number of threads. A row's gradient is made of sums of `PIECE` bags.
    """
    check_bags(table, offsets, rows, weights, transposed)
    chosen = BACKENDS.choose(backend, table)
    found: Tensor = BACKENDS.load(chosen).bag_vectors(table, offsets, rows, weights, transposed)
    return found
