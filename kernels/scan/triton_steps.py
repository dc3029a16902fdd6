# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the scan's GPU kernels share: step sizes, decays, rows of a tile, and where a state lies.

States of a block of channels are one tile (SPLIT, CHANNELS, STATES / SPLIT) in registers; state s lies at
(s // (STATES / SPLIT), channel, s % (STATES / SPLIT)). Triton gives each thread runs of 4 along the last
axis, which are one load of B, C or A, then spreads lanes over the last axis, over channels, and keeps the
rest in registers: SPLIT decides how many lanes share a channel. With STATES / SPLIT = 4 a channel belongs to
one lane, so that sums over states cost no exchange between lanes.
"""

import triton
import triton.language as tl

from recsys.kernels.shared.triton_math import exp2_fma, softplus


@triton.jit
def state_index(SPLIT: tl.constexpr, STATES: tl.constexpr):
    """(SPLIT, 1, STATES / SPLIT): the number of each state of a tile."""
    outer = tl.arange(0, SPLIT)[:, None, None]
    inner = tl.arange(0, STATES // SPLIT)[None, None, :]
    return outer * (STATES // SPLIT) + inner


@triton.jit
def point_states(states, own, s):
    """Addresses of a tile of states (channels, d_state) from the offset `own` of each channel.

    Added one after the other: what differs between registers is then a constant. The hint ranks the axes for
    Triton's choice of a layout, whatever its version makes of a tie: runs along the last axis, then lanes
    along channels. That channels lie side by side in twos is not so, and of no effect: loads widen along the
    last axis alone.
    """
    return tl.max_contiguous(states + own + s, [1, 2, 4])


@triton.jit
def load_states(states, own, s, inside, WHOLE: tl.constexpr):
    """A tile of states, zero outside; without a mask where nothing is outside."""
    if WHOLE:
        return tl.load(point_states(states, own, s))
    return tl.load(point_states(states, own, s), mask=inside, other=0.0)


@triton.jit
def load_state_row(row, s, states, WHOLE: tl.constexpr, ALIGNED: tl.constexpr):
    """One event's row of B or C in float32.

    ALIGNED: bytes that 4 states take, if each 4 lie at a multiple of them, else 0. Said here because Triton
    finds out about multiples of 16 elements alone, and B and C lie behind a narrow delta in one projection.
    """
    at = row + s
    if ALIGNED > 0:
        at = tl.multiple_of(at, [1, 1, ALIGNED])
    if WHOLE:
        return tl.load(at).to(tl.float32)
    return tl.load(at, mask=s < states, other=0.0).to(tl.float32)


@triton.jit
def point_events(matrix, columns, rows, stride):
    """Addresses of a tile (events, channels), from the matrix's row of its first event.

    Said to be aligned to nothing, so that each lane takes one channel and rows lie in different registers:
    the layout in which `pick` is free.
    """
    return tl.multiple_of(matrix + columns + rows * stride, [1, 1])


@triton.jit
def load_events(matrix, columns, rows, stride, inside):
    """A tile (events, channels) in float32, zero outside."""
    return tl.load(point_events(matrix, columns, rows, stride), mask=inside, other=0.0).to(tl.float32)


@triton.jit
def step_sizes(raw, SOFTPLUS: tl.constexpr):
    """Step size from delta + bias."""
    if SOFTPLUS:
        return softplus(raw)
    return raw


@triton.jit
def pick(tile, rows, t: tl.constexpr):
    """Row t of a tile of events, as (channels,).

    The rows lie in different registers of a thread, so that the comparison is known at compile time and
    adding -0.0, which changes no number, disappears: no instruction is left.
    """
    return tl.sum(tl.where(rows == t, tile, -0.0), axis=0)


@triton.jit
def put(tile, rows, t: tl.constexpr, row):
    """Put (channels,) into row t of a tile; see `pick`."""
    return tl.where(rows == t, row[None, :], tile)


@triton.jit
def decay(step, rates, t: tl.constexpr, FMA_EVERY: tl.constexpr):
    """2^(step * rate) for a step per channel.

    Every FMA_EVERY-th event is computed on the multiply-add pipes, 0 for none.
    """
    exponent = step[None, :, None] * rates
    if FMA_EVERY > 0 and t % FMA_EVERY == FMA_EVERY - 1:
        return exp2_fma(exponent)
    return tl.exp2(exponent)


@triton.jit
def sum_states(tile):
    """Sum over the states, as (channels,)."""
    return tl.sum(tl.sum(tile, axis=2), axis=0)
