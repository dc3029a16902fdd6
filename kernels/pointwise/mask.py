"""The dropout mask of activations: a pure function of (seed, row, column), computed again where it is needed.

A row's 64-bit key is its word of `random_words`. Each column takes 32 bits from the key by the two-round
mixing function of attention's mask, whose source is named there; the key's high half enters between the
rounds, so that two rows whose low halves lie near each other do not repeat each other's columns.
"""

import torch
from torch import Tensor

from recsys.kernels.attention.dropout import KEY_STEP, MIX_FIRST, MIX_SECOND, draw_seed, keep_threshold
from recsys.kernels.shared.random_words import row_keys

__all__ = ["COLUMN_STEP", "MIX_FIRST", "MIX_SECOND", "draw_seed", "keep_mask", "keep_threshold"]

COLUMN_STEP = KEY_STEP
_WORD = 0xFFFFFFFF


def keep_mask(
    seed: int | Tensor, rows: int, columns: int, dropout_p: float, *, device: torch.device | None = None
) -> Tensor:
    """Compute which elements are kept.

    Args:
        seed: a 63-bit number, or an int64 scalar on the device.
        rows: number of rows.
        columns: elements of a row, below 2^32.
        dropout_p: probability of dropping an element, in [0, 1); exact to 2^-32.
        device: where the mask is made; None for the CPU.

    Returns:
        (rows, columns) bool.
    """
    keys = row_keys(seed, torch.arange(rows, device=device))[:, None]
    word = (keys + torch.arange(columns, device=device) * COLUMN_STEP) & _WORD
    word = ((word ^ (word >> 16)) * MIX_FIRST) & _WORD
    word = word ^ ((keys >> 32) & _WORD)
    word = ((word ^ (word >> 15)) * MIX_SECOND) & _WORD
    return word >= keep_threshold(dropout_p)
