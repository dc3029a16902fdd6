"""What the launches of this room share: pieces of rows, and the mask's numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.kernels.pointwise.masks import keep_threshold
from recsys.kernels.shared.threads import launch, threads_for

__all__ = ["mask_numbers", "over_rows"]

PIECE = 1 << 14
"""Elements per piece of work, in whole rows."""


def over_rows(worker: Callable[..., Any], rows: int, width: int, steps: int, *args: Any) -> None:
    """Run a worker over pieces of rows.

    Args:
        worker: takes (slot, queue, rows, rows of a piece, width, *args).
        rows: N.
        width: elements of a row.
        steps: elementary steps of `threads_for` per element.
        args: passed on.
    """
    if rows == 0 or width == 0:
        return
    piece = max(1, PIECE // width)
    threads = threads_for(-(-rows // piece), rows * width * steps)
    launch(worker, threads, rows, piece, width, *args)


def mask_numbers(dropout_p: float, seed: int) -> tuple[int, int, np.float32]:
    """Return seed, threshold (0 keeps all) and the factor on what is kept, as workers take them."""
    threshold = keep_threshold(dropout_p) if dropout_p > 0.0 else 0
    return seed, threshold, np.float32(1.0 / (1.0 - dropout_p))
