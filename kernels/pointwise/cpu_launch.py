"""What the launches of this folder share: tasks of rows, and the mask's numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.kernels.pointwise.mask import keep_threshold
from recsys.kernels.shared.threads import launch, threads_for

__all__ = ["mask_numbers", "over_rows"]

TASK_ELEMENTS = 1 << 14
"""Elements per task_rows of work, in whole rows."""


def over_rows(worker: Callable[..., Any], rows: int, width: int, steps: int, *args: Any) -> None:
    """Run a worker over tasks of rows.

    Args:
        worker: takes (slot, queue, rows, rows of a task_rows, width, *args).
        rows: N.
        width: elements of a row.
        steps: elementary steps of `threads_for` per element.
        args: passed on.
    """
    if rows == 0 or width == 0:
        return
    task_rows = max(1, TASK_ELEMENTS // width)
    threads = threads_for(-(-rows // task_rows), rows * width * steps)
    launch(worker, threads, rows, task_rows, width, *args)


def mask_numbers(dropout_p: float, seed: int) -> tuple[int, int, np.float32]:
    """Return seed, threshold (0 keeps all) and the factor on what is kept, as workers take them."""
    threshold = keep_threshold(dropout_p) if dropout_p > 0.0 else 0
    return seed, threshold, np.float32(1.0 / (1.0 - dropout_p))
