"""The attention dropout mask: a pure function of (seed, sequence, head, query, key).

No backend stores a mask. Each computes the decision of one attention weight from integers alone, with the
same 32-bit mixing function, so forward, backward and every backend agree, whatever the tile sizes.

Source of `_mix`: C. Wellons, "Prospecting for hash functions" (2018), the two-round function with the
constants 0x21f0aaad and 0x735a2d97 found by T. Ettinger (exact bias 0.108 of 1000).
"""

import torch
from torch import Tensor

MIX_FIRST = 0x21F0AAAD
MIX_SECOND = 0x735A2D97
SEQUENCE_STEP = 0x85EBCA6B
HEAD_STEP = 0xC2B2AE35
ROW_STEP = 0x27D4EB2F
KEY_STEP = 0x9E3779B9
_WORD = 0xFFFFFFFF


def draw_seed(generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw the 63-bit number from which a whole call's mask follows, an int64 scalar.

    One `torch.randint` per call is all that a call takes from the generator (the default generator of
    the device when None is given). The number stays on the generator's device: nobody waits for it.
    """
    where = generator.device if generator is not None else device
    return torch.randint(0, 2**63 - 1, (), generator=generator, device=where)


def keep_threshold(dropout_p: float) -> int:
    """Words below this number drop the weight: round(p * 2^32), so p is exact to 2^-32."""
    return min(round(dropout_p * 2.0**32), _WORD)


def _stir(word: Tensor) -> Tensor:
    """Mix 32-bit words held in int64 tensors so that their high bits are good."""
    word = word & _WORD
    word = ((word ^ (word >> 16)) * MIX_FIRST) & _WORD
    return ((word ^ (word >> 15)) * MIX_SECOND) & _WORD


def _mix(word: Tensor) -> Tensor:
    """Mix 32-bit words so that all bits are good."""
    word = _stir(word)
    return word ^ (word >> 15)


def keep_mask(
    seed: int | Tensor,
    sequence: int,
    heads: int,
    length: int,
    dropout_p: float,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Compute which attention weights of one sequence are kept.

    Args:
        seed: number from `draw_seed`, or any 63-bit one.
        sequence: index of the sequence in the batch.
        heads: H.
        length: L, number of events of the sequence.
        dropout_p: probability of dropping a weight, in [0, 1).
        device: where the mask is made.

    Returns:
        (H, L, L) bool; entry (h, i, j) is True where query i keeps key j.
    """
    number = torch.as_tensor(seed, dtype=torch.int64, device=device)
    low, high = number & _WORD, number >> 32
    head = torch.arange(heads, dtype=torch.int64, device=device)[:, None]
    position = torch.arange(length, dtype=torch.int64, device=device)
    rows = _mix(low + sequence * SEQUENCE_STEP)
    rows = _mix((rows ^ high) + head * HEAD_STEP)
    rows = _mix(rows + position * ROW_STEP)  # (H, L)
    words = _stir(rows[:, :, None] + position * KEY_STEP)  # the last step would not touch the high bits
    return words >= keep_threshold(dropout_p)
