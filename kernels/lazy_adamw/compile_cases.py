"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.lazy_adamw.triton import update_rows

__all__ = ["record_all"]


def record_all() -> None:
    """Update rows of each width and type."""
    ids = torch.zeros(4, dtype=torch.int64)
    numbers = {"step_size": 0.1, "beta1": 0.9, "beta2": 0.98, "root": 1.5, "epsilon": 1e-8, "keep": 0.99}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for width in (16, 64, 256):
            rows = torch.zeros(4, width, dtype=dtype)
            update_rows(rows, rows, rows, ids, rows, **numbers)
