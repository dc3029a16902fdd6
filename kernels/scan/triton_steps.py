# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the scan's GPU kernels share: a program's block, records of the work list, step sizes, decays.

States of a block of channels are one tile (SPLIT, BLOCK_D, BLOCK_S / SPLIT) in registers; state s lies at
(s // (BLOCK_S / SPLIT), channel, s % (BLOCK_S / SPLIT)). Triton gives each thread runs of 4 along the last
axis, which are one load of B, C or A, then spreads lanes over the last axis, over channels, and keeps the
rest in registers: SPLIT decides how many lanes share a channel. With BLOCK_S / SPLIT = 4 a channel belongs to
one lane, so that sums over states cost no exchange between lanes.

Legend: BLOCK_D of the d_inner channels, BLOCK_S >= d_state states, BLOCK_T events of a tile.
"""

import triton
import triton.language as tl

from recsys.kernels.scan import schedule
from recsys.kernels.shared.triton_math import exp2_fma, softplus

FIELDS = tl.constexpr(schedule.FIELDS)
FIRST_EVENT = tl.constexpr(schedule.FIRST_EVENT)
EVENTS = tl.constexpr(schedule.EVENTS)
SEQUENCE = tl.constexpr(schedule.SEQUENCE)
SLOT = tl.constexpr(schedule.SLOT)
FIRST_SLOT = tl.constexpr(schedule.FIRST_SLOT)
SLOTS = tl.constexpr(schedule.SLOTS)


@triton.jit
def load_field(records, i, FIELD: tl.constexpr):
    """A field of record i of a schedule: `tasks`, `chunks` or `chains`."""
    return tl.load(records + i * FIELDS + FIELD)


@triton.jit
def locate(d_inner, d_state, SPLIT: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr):
    """A program's number among those of its block of channels, and where the block's channels and states lie.

    Returns:
        The number; channels (BLOCK_D,); states (SPLIT, 1, BLOCK_S / SPLIT); offsets (1, BLOCK_D, 1) of the
        channels in a matrix (d_inner, d_state); whether a channel (1, BLOCK_D) and a state of it, shape of
        the tile, is real.
    """
    blocks = tl.cdiv(d_inner, BLOCK_D)
    number = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    s = state_index(SPLIT, BLOCK_S)
    real = (c < d_inner)[None, :]
    own = (c * d_state)[None, :, None]
    inside = (c < d_inner)[None, :, None] & (s < d_state)
    return number, c, s, own, real, inside


@triton.jit
def state_index(SPLIT: tl.constexpr, BLOCK_S: tl.constexpr):
    """(SPLIT, 1, BLOCK_S / SPLIT): the number of each state of a tile."""
    outer = tl.arange(0, SPLIT)[:, None, None]
    inner = tl.arange(0, BLOCK_S // SPLIT)[None, None, :]
    return outer * (BLOCK_S // SPLIT) + inner


@triton.jit
def point_states(matrix, own, s):
    """Addresses of a tile of states in a matrix (d_inner, d_state) from the offset `own` of each channel.

    Added one after the other: what differs between registers is then a constant. The hint ranks the axes for
    Triton's choice of a layout, whatever its version makes of a tie: runs along the last axis, then lanes
    along channels. That channels lie side by side in twos is not so, and of no effect: loads widen along the
    last axis alone.
    """
    return tl.max_contiguous(matrix + own + s, [1, 2, 4])


@triton.jit
def load_states(matrix, own, s, inside, WHOLE: tl.constexpr):
    """A tile of states, zero outside; without a mask where nothing is outside."""
    if WHOLE:
        return tl.load(point_states(matrix, own, s))
    return tl.load(point_states(matrix, own, s), mask=inside, other=0.0)


@triton.jit
def load_channels(vector, c, d_inner):
    """A block's entries of D or the bias in float32, (BLOCK_D,), zero outside."""
    return tl.load(vector + c, mask=c < d_inner, other=0.0).to(tl.float32)


@triton.jit
def load_projection(matrix, row, event, stride, s, d_state, WHOLE: tl.constexpr, ALIGNED: tl.constexpr):
    """An event's row of B or C in float32; the event is counted from `row`.

    ALIGNED: bytes that 4 states take, if each 4 lie at a multiple of them, else 0. Said here because Triton
    finds out about multiples of 16 elements alone, and B and C lie behind a narrow delta in one projection.
    """
    at = matrix + row * stride + event * stride + s
    if ALIGNED > 0:
        at = tl.multiple_of(at, [1, 1, ALIGNED])
    if WHOLE:
        return tl.load(at).to(tl.float32)
    return tl.load(at, mask=s < d_state, other=0.0).to(tl.float32)


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
def step_sizes(raw, inside, SOFTPLUS: tl.constexpr):
    """Step sizes from delta + bias; zero after the softplus outside: such an event then changes nothing."""
    if SOFTPLUS:
        raw = softplus(raw)
    return tl.where(inside, raw, 0.0)


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
def advance(h, step, push, rates, b, rows, t: tl.constexpr, FMA_EVERY: tl.constexpr):
    """The state after event t of a tile, from the state before it: exp(step A) h + push b."""
    fade = decay(pick(step, rows, t), rates, t, FMA_EVERY)
    return fade * h + pick(push, rows, t)[None, :, None] * b


@triton.jit
def sum_states(tile):
    """Sum over the states, as (channels,)."""
    return tl.sum(tl.sum(tile, axis=2), axis=0)
