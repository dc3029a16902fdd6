"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.bags.triton import sums

__all__ = ["record_all"]


def record_all() -> None:
    """Sum rows of each width and type, with and without weights."""
    offsets, rows = torch.zeros(65, dtype=torch.int64), torch.zeros(64, dtype=torch.int32)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for width in (16, 32, 64, 256):
            for weights in (None, torch.zeros(64)):
                sums(torch.zeros(64, width, dtype=dtype), offsets, rows, weights)
