"""Item vectors by id, with a gradient that costs what the batch touches: ids sorted, rows added in order.

Read `reference` first, then `gather` (the forward pass that both devices share) and `cpu_segments` or
`triton_segments`, the sums by id.

Legend: M look-ups, R rows of a table, d width, U distinct rows.
"""

from types import ModuleType

from torch import Tensor

from recsys.kernels.embedding import reference
from recsys.kernels.embedding.checks import check_ids, check_table
from recsys.kernels.embedding.hashing import HashedTable, Items, item_count, rows_of
from recsys.kernels.shared.backends import BackendTable

__all__ = ["HashedTable", "Items", "item_count", "item_vectors", "merge_rows", "rows_of"]


def _cpu() -> ModuleType:
    from recsys.kernels.embedding import cpu

    return cpu


def _triton() -> ModuleType:
    from recsys.kernels.embedding import triton

    return triton


BACKENDS = BackendTable[ModuleType](
    "embedding", {"reference": lambda: reference, "cpu": _cpu, "triton": _triton}
)


def item_vectors(items: Items, ids: Tensor, *, sparse: bool = False, backend: str | None = None) -> Tensor:
    """Look up the vectors of items.

    Args:
        items: (R, d) float32, float64, bfloat16 or float16, or a `HashedTable` of one.
        ids: (M,) int64.
        sparse: whether the table's gradient is a sparse tensor of the rows looked up (compiled: coalesced),
            so that nothing of the table's size is written, or a dense one.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        (M, d), dtype of the table. Differentiable once in the table.

    Raises:
        ArgumentError: an argument does not fit.

    Cost: O(M d) forward; backward O(M d + U d), plus O(R d) for a dense gradient.
    Numerics: "cpu" adds an item's gradient rows in the order of the events, in float32: threads and
    neighbours change no bit. "triton" adds them in float32 in an order that the batch decides, the same in
    every run; there a sparse gradient waits for the device once.
    """
    check_ids(ids)
    table, rows = rows_of(items, ids)
    check_table(table)
    found: Tensor = BACKENDS.load(BACKENDS.choose(backend, table)).lookup(table, rows, sparse)
    return found


def merge_rows(gradient: Tensor, *, backend: str | None = None) -> Tensor:
    """Add up the rows that a sparse gradient holds for the same id.

    Args:
        gradient: sparse (R, d) with dense rows, as `item_vectors` and several uses of one table leave it.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        The same gradient, coalesced: ids distinct and ascending.
    """
    if gradient.is_coalesced():
        return gradient
    merged: Tensor = BACKENDS.load(BACKENDS.choose(backend, gradient._values())).merge_rows(gradient)
    return merged
