# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The scan's forward kernels: tasks of sequences, and the ends of chunks of long ones.

Both walk through time with the state in registers. TIME events are one tile: their rows of u, delta and z
are loaded together, step sizes and gates computed on the tile, and its events unrolled, so that the loads
and the exponentials of one event overlap with another's.
"""

import triton
import triton.language as tl

from recsys.kernels.scan.triton_steps import (
    decay,
    load_events,
    load_state_row,
    load_states,
    pick,
    point_events,
    point_states,
    put,
    state_index,
    step_sizes,
    sum_states,
)
from recsys.kernels.shared.triton_math import LOG2_E, sigmoid


@triton.jit
def scan_tasks(
    u,
    delta,
    A,
    B,
    C,
    D,
    z,
    bias,
    initial,
    carries,
    offsets,
    tasks,
    bounds,
    y,
    final,
    kept,
    u_row,
    delta_row,
    B_row,
    C_row,
    z_row,
    channels,
    states,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    KEEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    SPLIT: tl.constexpr,
    TIME: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Scan one group's tasks for one block of channels.

    A task starts from its sequence's initial state or from its chunk's row of `carries`. `kept` receives
    the state before each KEEP-th event of a sequence, in row event // KEEP - 1: two such events are never
    less than KEEP apart, so that rows do not collide.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    group = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    s = state_index(SPLIT, STATES)
    rows = tl.arange(0, TIME)[:, None]
    columns = c[None, :]
    real = (c < channels)[None, :]
    own = (c * states)[None, :, None]
    inside = (c < channels)[None, :, None] & (s < states)
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    if D is not None:
        skip = tl.load(D + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    if bias is not None:
        lift = tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
    for task in range(tl.load(bounds + group), tl.load(bounds + group + 1)):
        row = tl.load(tasks + task * 4).to(tl.int64)
        events = tl.load(tasks + task * 4 + 1)
        sequence = tl.load(tasks + task * 4 + 2)
        slot = tl.load(tasks + task * 4 + 3)
        begin = tl.load(offsets + sequence).to(tl.int64)
        state_at = sequence.to(tl.int64) * channels * states
        h = tl.zeros((SPLIT, CHANNELS, STATES // SPLIT), tl.float32)
        if initial is not None:
            h += tl.load(point_states(initial + state_at, own, s), mask=inside & (slot < 0), other=0.0)
        if carries is not None:
            carry_at = slot.to(tl.int64) * channels * states
            h += tl.load(point_states(carries + carry_at, own, s), mask=inside & (slot >= 0), other=0.0)
        for t in range(0, events, TIME):
            here = row + t
            if kept is not None:
                mark = (t % KEEP == 0) & (here > begin)
                if mark:
                    tl.store(
                        point_states(kept + (here // KEEP - 1) * channels * states, own, s), h, mask=inside
                    )
            inner = (t + rows < events) & real
            raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
            value = load_events(u + here * u_row, columns, rows, u_row, inner)
            if z is not None:
                gate = load_events(z + here * z_row, columns, rows, z_row, inner)
            if bias is not None:
                raw += lift
            # Zero after the softplus: an event past the end then changes nothing.
            step = tl.where(inner, step_sizes(raw, SOFTPLUS), 0.0)
            push = step * value
            out = step * 0.0
            for k in tl.static_range(TIME):
                event = tl.minimum(t + k, events - 1)
                b = load_state_row(B + row * B_row + event * B_row, s, states, WHOLE, ALIGNED)
                read = load_state_row(C + row * C_row + event * C_row, s, states, WHOLE, ALIGNED)
                fade = decay(pick(step, rows, k), rates, k, FMA_EVERY)
                h = fade * h + pick(push, rows, k)[None, :, None] * b
                out = put(out, rows, k, sum_states(h * read))
            if D is not None:
                out += skip * value
            if z is not None:
                out *= gate * sigmoid(gate)
            tl.store(point_events(y + here * channels, columns, rows, channels), out, mask=inner)
        if final is not None:
            last = row + events == tl.load(offsets + sequence + 1)
            tl.store(point_states(final + state_at, own, s), h, mask=inside & last)


@triton.jit
def scan_chunk_ends(
    u,
    delta,
    A,
    B,
    bias,
    chunks,
    ends,
    spans,
    u_row,
    delta_row,
    B_row,
    channels,
    states,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    SPLIT: tl.constexpr,
    TIME: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Scan one chunk from a state of zero: its end state, and the sum of its steps."""
    blocks = tl.cdiv(channels, CHANNELS)
    slot = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * CHANNELS + tl.arange(0, CHANNELS)
    s = state_index(SPLIT, STATES)
    rows = tl.arange(0, TIME)[:, None]
    columns = c[None, :]
    real = (c < channels)[None, :]
    own = (c * states)[None, :, None]
    inside = (c < channels)[None, :, None] & (s < states)
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    row = tl.load(chunks + slot * 4).to(tl.int64)
    events = tl.load(chunks + slot * 4 + 1)
    h = tl.zeros((SPLIT, CHANNELS, STATES // SPLIT), tl.float32)
    span = tl.zeros((CHANNELS,), tl.float32)
    for t in range(0, events, TIME):
        here = row + t
        inner = (t + rows < events) & real
        raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
        value = load_events(u + here * u_row, columns, rows, u_row, inner)
        if bias is not None:
            raw += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
        step = tl.where(inner, step_sizes(raw, SOFTPLUS), 0.0)
        push = step * value
        span += tl.sum(step, axis=0)
        for k in tl.static_range(TIME):
            event = tl.minimum(t + k, events - 1)
            b = load_state_row(B + row * B_row + event * B_row, s, states, WHOLE, ALIGNED)
            fade = decay(pick(step, rows, k), rates, k, FMA_EVERY)
            h = fade * h + pick(push, rows, k)[None, :, None] * b
    tl.store(point_states(ends + slot * channels * states, own, s), h, mask=inside)
    tl.store(spans + slot * channels + c, span, mask=c < channels)
