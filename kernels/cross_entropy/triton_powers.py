# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Exponentials of a tile of logits, a fixed share of them by multiply-adds.

At d = 64 the special-function unit bounds the loss: 16 exponentials per multiprocessor and clock. Columns are
halved and rejoined in registers; nothing is moved.
"""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_math import exp2_fma


@triton.jit
def _halves(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.split(tl.permute(tl.reshape(x, (ROWS, 2, COLUMNS // 2)), (0, 2, 1)))


@triton.jit
def _whole(a, b, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.reshape(tl.permute(tl.join(a, b), (0, 2, 1)), (ROWS, COLUMNS))


@triton.jit
def powers(x, ROWS: tl.constexpr, COLUMNS: tl.constexpr, POLYNOMIAL: tl.constexpr):
    """2^x of a (ROWS, COLUMNS) tile, the last POLYNOMIAL (0 or 1) eighth of its columns by polynomial."""
    if POLYNOMIAL == 0:
        return tl.exp2(x)
    half, rest = _halves(x, ROWS, COLUMNS)
    quarter, rest = _halves(rest, ROWS, COLUMNS // 2)
    eighth, last = _halves(rest, ROWS, COLUMNS // 4)
    # The polynomial clamps its argument from below, which would turn NaN into a small number.
    last = tl.where(last == last, exp2_fma(last), last)
    rest = _whole(tl.exp2(eighth), last, ROWS, COLUMNS // 4)
    rest = _whole(tl.exp2(quarter), rest, ROWS, COLUMNS // 2)
    return _whole(tl.exp2(half), rest, ROWS, COLUMNS)
