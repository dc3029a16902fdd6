"""Exponential, softplus, sigmoid and masked access on SIMD vectors, for the compiled CPU kernels.

Polynomials instead of library calls: numba's PyPI build has no vector math library, and a scalar exp would
cost more than the kernels' own work.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core import cgutils

from recsys.kernels.shared.vector import (
    LANES,
    add,
    divide,
    fma,
    load,
    maximum,
    multiply,
    splat,
    store,
    subtract,
)
from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import (
    INT_VECTOR,
    LANES_TYPE,
    VECTOR,
    call,
    constant,
    element_pointer,
    spread,
)

__all__ = [
    "LOG2_E",
    "decay",
    "decline",
    "inlined",
    "load_first",
    "logarithm",
    "read",
    "sigmoid",
    "softplus",
    "splat_at",
    "store_first",
    "write",
]

LOG2_E = np.float32(1.4426950408889634)

# (2 atanh(s) / s) in powers of s^2 on [0, 1/9]: minimax in relative error, 4e-9.
_LOG1P = (2.0, 0.66666315, 0.4002491, 0.27960603, 0.28178335)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_ZERO = np.float32(0.0)
_L4, _L3, _L2, _L1, _L0 = (np.float32(x) for x in _LOG1P[::-1])


# 2^f = 1 + f P(f) on [-0.5, 0.5]: minimax in the error of P, 3e-7, so that the relative error is 2e-7 and
# vanishes with f. A decay near one must not be off by an ulp always the same way: it is taken to the power
# of the sequence's length.
_EXP2 = (0.00134004, 0.00966637, 0.05550333, 0.24022349, 0.6931472, 1.0)

# Adding it rounds to whole numbers and leaves whole + 127 in the low bits, float32's biased exponent.
_ROUNDER = 1.5 * 2.0**23 + 127.0

# Inlined by numba, so that vectors stay in registers and functions may return them.
inlined = cast("Callable[[Callable[..., Any]], Any]", njit(inline="always"))


@intrinsic
def decay(typing_context: Any, step: Any, rate: Any) -> Any:
    """Compute 2^(step * rate), relative error below 3e-7 near one and 1e-6 anywhere; NaN for NaN.

    Zero below 2^-127 and infinite from 2^128 on.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x = builder.fmul(*args)
        x = builder.select(builder.fcmp_ordered("<", x, constant(-127.0)), constant(-127.0), x)
        x = builder.select(builder.fcmp_ordered(">", x, constant(128.0)), constant(128.0), x)
        rounded = builder.fadd(x, constant(_ROUNDER))
        part = builder.fsub(x, builder.fsub(rounded, constant(_ROUNDER)))
        power = constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            power = call(builder, "llvm.fma", power, part, constant(coefficient))
        bits = builder.shl(builder.bitcast(rounded, INT_VECTOR), ir.Constant(INT_VECTOR, [23] * LANES))
        return builder.fmul(power, builder.bitcast(bits, VECTOR))

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), emit


# Subtracting it splits a float32 into a power of two and a part in [2/3, 4/3).
_TWO_THIRDS = 0x3F2AAAAB
_LN2 = 0.6931471805599453


@intrinsic
def logarithm(typing_context: Any, x: Any) -> Any:
    """Compute ln(x) of positive normal numbers, error below 1e-7 (1 + |ln x|); anything elsewhere."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], INT_VECTOR)

        def integer(value: int) -> Any:
            return ir.Constant(INT_VECTOR, [value] * LANES)

        whole = builder.ashr(builder.sub(bits, integer(_TWO_THIRDS)), integer(23))
        part = builder.bitcast(builder.sub(bits, builder.shl(whole, integer(23))), VECTOR)
        ratio = builder.fdiv(builder.fsub(part, constant(1.0)), builder.fadd(part, constant(1.0)))
        square = builder.fmul(ratio, ratio)
        series = constant(_LOG1P[-1])
        for coefficient in _LOG1P[-2::-1]:
            series = call(builder, "llvm.fma", series, square, constant(coefficient))
        power = builder.fmul(builder.sitofp(whole, VECTOR), constant(_LN2))
        return call(builder, "llvm.fma", ratio, series, power)

    return LANES_TYPE(LANES_TYPE), emit


@intrinsic
def select_negative(typing_context: Any, x: Any, value: Any, otherwise: Any) -> Any:
    """Take `value` in the lanes where x is below zero, `otherwise` in the others and where x is NaN."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", args[0], constant(0.0)), args[1], args[2])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), emit


def _first(builder: Any, count: Any) -> Any:
    """Emit the mask of the lanes below `count`."""
    steps = ir.Constant(INT_VECTOR, list(range(LANES)))
    return builder.icmp_signed("<", steps, spread(builder, builder.trunc(count, ir.IntType(32)), INT_VECTOR))


def _declare(builder: Any, name: str, result: Any, *args: Any) -> Any:
    declare: Any = cgutils.get_or_insert_function
    return declare(builder.module, ir.FunctionType(result, args), f"llvm.masked.{name}.v{LANES}f32.p0")


@intrinsic
def splat_at(typing_context: Any, array: Any, position: Any) -> Any:
    """Repeat one element in all lanes; indexing the array would cost a check for negative positions."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return spread(builder, builder.load(element_pointer(context, builder, signature.args[0], *args)))

    return LANES_TYPE(array, types.int64), emit


@intrinsic
def load_first(typing_context: Any, array: Any, position: Any, count: Any) -> Any:
    """Load the first `count` lanes from `position`, zero in the others; reads no other element."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, signature.args[0], args[0], args[1])
        pointer = builder.bitcast(pointer, VECTOR.as_pointer())
        mask = _first(builder, args[2])
        align = ir.IntType(32)
        function = _declare(builder, "load", VECTOR, pointer.type, align, mask.type, VECTOR)
        return builder.call(function, [pointer, align(4), mask, constant(0.0)])

    return LANES_TYPE(array, types.int64, types.int64), emit


@intrinsic
def store_first(typing_context: Any, array: Any, position: Any, count: Any, value: Any) -> Any:
    """Store the first `count` lanes to `position`; touches no other element."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, signature.args[0], args[0], args[1])
        pointer = builder.bitcast(pointer, VECTOR.as_pointer())
        mask = _first(builder, args[2])
        align = ir.IntType(32)
        function = _declare(builder, "store", ir.VoidType(), VECTOR, pointer.type, align, mask.type)
        builder.call(function, [args[3], pointer, align(4), mask])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, LANES_TYPE), emit


@inlined
def read(array: Any, at: Any, left: Any) -> Any:
    """Load a vector of which the first `left` lanes exist; zeros in the others."""
    return load(array, at) if left >= LANES else load_first(array, at, left)


@inlined
def write(array: Any, at: Any, left: Any, value: Any) -> None:
    """Store a vector of which the first `left` lanes exist."""
    if left >= LANES:
        store(array, at, value)
    else:
        store_first(array, at, left, value)


@inlined
def decline(x: Any) -> Any:
    """Compute exp(-|x|)."""
    return decay(maximum(x, subtract(splat(_ZERO), x)), splat(-LOG2_E))


@inlined
def softplus(x: Any, fall: Any) -> Any:
    """Compute log(1 + exp(x)) from x and fall = decline(x), exact to 1e-7 of its value.

    Beyond 20, where PyTorch switches to x itself, the two agree in every bit of a float32.
    """
    s = divide(fall, add(splat(_TWO), fall))
    square = multiply(s, s)
    series = fma(splat(_L4), square, splat(_L3))
    series = fma(series, square, splat(_L2))
    series = fma(series, square, splat(_L1))
    series = fma(series, square, splat(_L0))
    # x first: where it is NaN, so is the maximum.
    return fma(s, series, maximum(x, splat(_ZERO)))


@inlined
def sigmoid(x: Any, fall: Any) -> Any:
    """Compute 1 / (1 + exp(-x)), the slope of softplus, from x and fall = decline(x)."""
    rise = divide(splat(_ONE), add(splat(_ONE), fall))
    return select_negative(x, multiply(fall, rise), rise)
