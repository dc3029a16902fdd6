# mypy: allow-untyped-defs, allow-untyped-decorators, allow-untyped-calls
"""Functions of single numbers, for use inside Triton kernels: exponentials, softplus, sigmoid.

`exp2_fma` computes 2^x on the multiply-add pipes instead of the special-function unit, which gives 16 results
per multiprocessor and clock where multiply-adds give 128: a kernel bound by exponentials can have both
work at once by sending a share of its tiles here.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def exp2_fma(x):
    """2^x for float32 x <= 127 by a polynomial of degree 5, relative error 3e-7; 2^-126 below -126.

    The fraction is taken to [-0.5, 0.5] by adding and subtracting 1.5 * 2^23, whose low bits then hold the
    whole part: it goes into the exponent by integer arithmetic. Coefficients: minimax, with value exactly 1
    at 0 (those of the CPU's `activation.decay`).
    """
    x = tl.maximum(x, -126.0)
    rounded = x + 12582912.0
    part = x - (rounded - 12582912.0)
    power = 0.00134004 * part + 0.00966637
    power = power * part + 0.05550333
    power = power * part + 0.24022349
    power = power * part + 0.6931472
    power = power * part + 1.0
    whole = rounded.to(tl.int32, bitcast=True) << 23
    return (power.to(tl.int32, bitcast=True) + whole).to(tl.float32, bitcast=True)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    fall = tl.exp2(-tl.abs(x) * LOG2_E)
    rise = 1.0 / (1.0 + fall)
    return tl.where(x < 0, fall * rise, rise)


@triton.jit
def softplus(x):
    """log(1 + exp(x)), to 2e-7 of its value for any x.

    log1p(f) = 2 atanh(f / (2 + f)) by its series for f = exp(-|x|): log(1 + f) itself would lose f below
    1e-7, and with it every small step of a scan.
    """
    fall = tl.exp2(-tl.abs(x) * LOG2_E)
    s = fall / (2.0 + fall)
    square = s * s
    series = 0.28178335 * square + 0.27960603
    series = series * square + 0.4002491
    series = series * square + 0.66666315
    series = series * square + 2.0
    return s * series + tl.maximum(x, 0.0)
