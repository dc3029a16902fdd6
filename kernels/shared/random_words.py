"""Random words without a state: a pure function of a counter, the same on every device and in any order.

A word is SplitMix64's output (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
with the finalizer of D. Stafford's variant 13): 64 bits held in int64 tensors, whose products wrap.
"""

import torch
from torch import Tensor

__all__ = [
    "ATTEMPT_STEP",
    "MIX_FIRST",
    "MIX_SECOND",
    "ROW_STEP",
    "mix",
    "row_keys",
    "row_start",
    "scaled",
    "signed",
]

MIX_FIRST = 0xBF58476D1CE4E5B9
MIX_SECOND = 0x94D049BB133111EB
ATTEMPT_STEP = 0x9E3779B97F4A7C15
"""The golden gamma: what SplitMix64 adds per word."""

ROW_STEP = 0xD1B54A32D192ED03

LARGEST = (1 << 31) - 1
"""Largest range of `scaled`."""

_HALF = 0xFFFFFFFF


def signed(word: int) -> int:
    """Return the int64 with the bits of a 64-bit word."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def mix(words: Tensor) -> Tensor:
    """Mix int64 words so that each bit of a result depends on every bit of its word."""
    words = (words ^ _right(words, 30)) * signed(MIX_FIRST)
    words = (words ^ _right(words, 27)) * signed(MIX_SECOND)
    return words ^ _right(words, 31)


def row_keys(seed: int | Tensor, rows: Tensor) -> Tensor:
    """Return where the stream of each row begins; int64, shape of `rows`.

    A seed that is a tensor is an int64 scalar on the device of the rows.
    """
    if isinstance(seed, Tensor):
        return mix(rows * signed(ROW_STEP) + mix(seed + signed(ATTEMPT_STEP)))
    start = mix(torch.tensor(signed(seed + ATTEMPT_STEP), dtype=torch.int64))
    return mix(rows * signed(ROW_STEP) + int(start))


def row_start(seed: int, first_row: int) -> tuple[int, int]:
    """Return what a kernel adds to row * ROW_STEP before mixing, if its row 0 counts as `first_row`.

    As two signed 32-bit halves, the high one first.
    """
    start = int(mix(torch.tensor(signed(seed + ATTEMPT_STEP), dtype=torch.int64)))
    word = signed(start + first_row * ROW_STEP)
    low = word & _HALF
    return word >> 32, low - (1 << 32) if low >> 31 else low


def scaled(words: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Split words * n at the 64th bit.

    Args:
        words: int64, any shape.
        n: 1 to 2^31 - 1.

    Returns:
        floor(words * n / 2^64), uniform in [0, n), and the 32 bits that follow, which are uniform given the
        first; both int64, shape of `words`.
    """
    high, low = _right(words, 32), words & _HALF
    return (high * n + _right(low * n, 32)) >> 32, _right(words * n, 32)


def _right(words: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift repeats the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)
