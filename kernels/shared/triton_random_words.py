# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The words of `random_words` for use inside Triton kernels: int64 whose products wrap."""

import triton
import triton.language as tl

from recsys.kernels.shared.random_words import ATTEMPT_STEP, MIX_FIRST, MIX_SECOND, ROW_STEP, signed

__all__ = ["mix", "row_keys", "scaled", "word_of"]

_FIRST = tl.constexpr(signed(MIX_FIRST))
_SECOND = tl.constexpr(signed(MIX_SECOND))
_ATTEMPT = tl.constexpr(signed(ATTEMPT_STEP))
_ROW = tl.constexpr(signed(ROW_STEP))
_HALF = tl.constexpr(0xFFFFFFFF)


@triton.jit
def _right(words, BITS: tl.constexpr):
    """Shift right and fill with zeros."""
    return (words >> BITS) & ((1 << (64 - BITS)) - 1)


@triton.jit
def mix(words):
    """SplitMix64's finalizer."""
    words = (words ^ _right(words, 30)) * _FIRST
    words = (words ^ _right(words, 27)) * _SECOND
    return words ^ _right(words, 31)


@triton.jit
def row_keys(high, low, rows):
    """Where the stream of each int64 row begins; `high`, `low` are the 32-bit halves of `row_start`."""
    start = (high.to(tl.int64) << 32) | (low.to(tl.int64) & _HALF)
    return mix(rows * _ROW + start)


@triton.jit
def word_of(keys, place):
    """The word number `place` (int64, from 0) of a stream."""
    return mix(keys + (place + 1) * _ATTEMPT)


@triton.jit
def scaled(words, n):
    """floor(words * n / 2^64) for words read as unsigned, and the 32 bits that follow; n int64 below 2^31."""
    whole = (_right(words, 32) * n + _right((words & _HALF) * n, 32)) >> 32
    return whole, _right(words * n, 32)
