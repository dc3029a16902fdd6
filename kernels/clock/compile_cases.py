"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import torch

from recsys.kernels.clock.triton import FEATURES, decayed_products

__all__ = ["record_all"]


def record_all() -> None:
    """Launch every configuration in each direction, as forward and backward passes do."""
    offsets = torch.tensor([0, 3], dtype=torch.int32)
    for features in FEATURES:
        rows, logs = torch.zeros(3, features), torch.zeros(3, dtype=torch.float64)
        for reverse in (False, True):
            for decaying in (False, True):
                decayed_products(rows, logs, rows, logs, rows, offsets, 16, reverse, decaying)
