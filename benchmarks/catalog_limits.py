"""Loops that show what one thread of this machine can do at most: multiply-adds, reading, exponentials."""

import numpy as np

from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    exp2,
    fma,
    load,
    splat,
    sum_lanes,
)

_CHAINS = 12
"""Independent sums: more than two units with a latency of four clocks can have under way."""


@compiled
def multiply_adds(values: Array, steps: Number) -> Number:
    """Do `steps` rounds of multiply-adds on registers; for 0 steps the FLOP of one round, else a sum."""
    if steps == 0:
        return np.float32(2 * _CHAINS * LANES)
    a, b = load(values, 0), load(values, LANES)
    s0, s1, s2, s3 = a, b, a, b
    s4, s5, s6, s7 = load(values, 2 * LANES), b, load(values, 3 * LANES), a
    s8, s9, s10, s11 = a, load(values, 4 * LANES), b, load(values, 5 * LANES)
    for _ in range(steps):
        s0, s1, s2, s3 = fma(a, b, s0), fma(a, b, s1), fma(a, b, s2), fma(a, b, s3)
        s4, s5, s6, s7 = fma(a, b, s4), fma(a, b, s5), fma(a, b, s6), fma(a, b, s7)
        s8, s9, s10, s11 = fma(b, b, s8), fma(b, b, s9), fma(b, b, s10), fma(b, b, s11)
    total = add(add(add(s0, s1), add(s2, s3)), add(add(s4, s5), add(s6, s7)))
    return sum_lanes(add(total, add(add(s8, s9), add(s10, s11))))


@compiled
def read_all(values: Array) -> Number:
    """Add up all values, four vectors at a time; their number is a multiple of 4 * LANES."""
    zero = splat(np.float32(0.0))
    s0, s1, s2, s3 = zero, zero, zero, zero
    for at in range(0, len(values), 4 * LANES):
        s0, s1 = add(s0, load(values, at)), add(s1, load(values, at + LANES))
        s2, s3 = add(s2, load(values, at + 2 * LANES)), add(s3, load(values, at + 3 * LANES))
    return sum_lanes(add(add(s0, s1), add(s2, s3)))


@compiled
def exponentials(values: Array, rounds: Number) -> Number:
    """Take exp2 of all values `rounds` times; their number is a multiple of 4 * LANES."""
    zero = splat(np.float32(0.0))
    s0, s1, s2, s3 = zero, zero, zero, zero
    for _ in range(rounds):
        for at in range(0, len(values), 4 * LANES):
            s0, s1 = add(s0, exp2(load(values, at))), add(s1, exp2(load(values, at + LANES)))
            s2 = add(s2, exp2(load(values, at + 2 * LANES)))
            s3 = add(s3, exp2(load(values, at + 3 * LANES)))
    return sum_lanes(add(add(s0, s1), add(s2, s3)))
