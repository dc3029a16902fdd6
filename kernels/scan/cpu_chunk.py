"""The scan's backward pass over one chunk of events and one pair of vectors of channels.

A chunk's steps (decay and carried state of every event and state) are computed forward, then used backward;
they stay in cache between the two. Equations and letters are those of `cpu_backward`.
"""

import numpy as np

from recsys.kernels.scan.cpu_states import PAIR
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    splat,
    store,
)
from recsys.kernels.shared.vector.activation import decay, splat_at

__all__ = [
    "CARRY",
    "GATE",
    "PULL",
    "PUSH",
    "READS",
    "RECORD",
    "RISE",
    "SLOPE",
    "STATE",
    "STEP",
    "STRIP",
    "SUMS",
    "TOTAL",
    "VALUE",
    "advance",
    "retreat",
    "settle",
]

# Fields of a state's record: decay rate, state, gradient a l of the state before, sums of dt l q over the
# chunk and over the chunks: one sum over thousands of events would lose two digits.
STATE, CARRY, SLOPE, TOTAL, RECORD = (i * PAIR for i in range(1, 6))

# Fields of an event's strip: dt, u, dt u, slope of softplus, g, dy silu'(z). The last three give way to
# the gradients of delta, u and z.
VALUE, PUSH, RISE, PULL, GATE, STRIP = (i * PAIR for i in range(1, 7))

# Fields of a step (an event and a state): a, q. Of a sum over channels: dB, dC.
STAYS, STEP = PAIR, 2 * PAIR
READS, SUMS = LANES, 2 * LANES

_ZERO = np.float32(0)
_LN_2 = np.float32(0.6931471805599453)


@compiled
def advance(
    space: Array,
    record: Number,
    strips: Number,
    steps: Number,
    events: Number,
    d_state: Number,
    B: Array,
    b_at: Number,
    b_row: Number,
) -> None:
    """Run a chunk forward for one vector of channels, keeping a and q of every step."""
    for k in range(events):
        strip, at, to = strips + k * STRIP, record, steps + k * d_state * STEP
        step, push = load(space, strip), load(space, strip + PUSH)
        for n in range(d_state):
            fade = decay(step, load(space, at))
            stays = multiply(fade, load(space, at + STATE))
            store(space, to, fade)
            store(space, to + STAYS, stays)
            store(space, at + STATE, fma(push, splat_at(B, b_at + k * b_row + n), stays))
            at += RECORD
            to += STEP


@compiled
def retreat(
    space: Array,
    record: Number,
    skip: Number,
    strips: Number,
    steps: Number,
    sums: Number,
    events: Number,
    d_state: Number,
    B: Array,
    b_at: Number,
    b_row: Number,
    C: Array,
    c_at: Number,
    c_row: Number,
) -> None:
    """Run a chunk backward for a pair of vectors, leaving the gradients of its rows in the strips."""
    skip_0, skip_1 = load(space, skip), load(space, skip + LANES)
    for k in range(events - 1, -1, -1):
        strip, at = strips + k * STRIP, record
        from_, sum_at = steps + k * d_state * STEP, sums + k * d_state * SUMS
        dt_0, dt_1 = load(space, strip), load(space, strip + LANES)
        u_0, u_1 = load(space, strip + VALUE), load(space, strip + VALUE + LANES)
        push_0, push_1 = load(space, strip + PUSH), load(space, strip + PUSH + LANES)
        g_0, g_1 = load(space, strip + PULL), load(space, strip + PULL + LANES)
        out_0, out_1 = multiply(skip_0, u_0), multiply(skip_1, u_1)
        through_0 = splat(_ZERO)  # B.l
        through_1 = splat(_ZERO)
        along_0 = splat(_ZERO)  # A.(l q)
        along_1 = splat(_ZERO)
        for n in range(d_state):
            b, c = splat_at(B, b_at + k * b_row + n), splat_at(C, c_at + k * c_row + n)
            stays_0, stays_1 = load(space, from_ + STAYS), load(space, from_ + STAYS + LANES)
            l_0 = fma(c, g_0, load(space, at + CARRY))
            l_1 = fma(c, g_1, load(space, at + CARRY + LANES))
            h_0, h_1 = fma(push_0, b, stays_0), fma(push_1, b, stays_1)
            out_0, out_1 = fma(c, h_0, out_0), fma(c, h_1, out_1)
            through_0, through_1 = fma(b, l_0, through_0), fma(b, l_1, through_1)
            sum_B, sum_C = load(space, sum_at), load(space, sum_at + READS)
            store(space, sum_at, fma(push_1, l_1, fma(push_0, l_0, sum_B)))
            store(space, sum_at + READS, fma(g_1, h_1, fma(g_0, h_0, sum_C)))
            lq_0, lq_1 = multiply(l_0, stays_0), multiply(l_1, stays_1)
            along_0 = fma(lq_0, load(space, at), along_0)
            along_1 = fma(lq_1, load(space, at + LANES), along_1)
            store(space, at + SLOPE, fma(lq_0, dt_0, load(space, at + SLOPE)))
            store(space, at + SLOPE + LANES, fma(lq_1, dt_1, load(space, at + SLOPE + LANES)))
            store(space, at + CARRY, multiply(l_0, load(space, from_)))
            store(space, at + CARRY + LANES, multiply(l_1, load(space, from_ + LANES)))
            at += RECORD
            from_ += STEP
            sum_at += SUMS
        along_0 = fma(u_0, through_0, multiply(along_0, splat(_LN_2)))  # the rates are A log2(e)
        along_1 = fma(u_1, through_1, multiply(along_1, splat(_LN_2)))
        rise, pull, gate = strip + RISE, strip + PULL, strip + GATE
        store(space, rise, multiply(along_0, load(space, rise)))
        store(space, rise + LANES, multiply(along_1, load(space, rise + LANES)))
        store(space, pull, fma(skip_0, g_0, multiply(dt_0, through_0)))
        store(space, pull + LANES, fma(skip_1, g_1, multiply(dt_1, through_1)))
        store(space, gate, multiply(out_0, load(space, gate)))
        store(space, gate + LANES, multiply(out_1, load(space, gate + LANES)))


@compiled
def settle(space: Array, count: Number, d_state: Number) -> None:
    """Add the sums over a chunk to those over all chunks and clear them."""
    for record in range(0, (count + PAIR - 1) // PAIR * d_state * RECORD, RECORD):
        for half in range(0, PAIR, LANES):
            total = record + TOTAL + half
            store(space, total, add(load(space, total), load(space, record + SLOPE + half)))
            store(space, record + SLOPE + half, splat(_ZERO))
