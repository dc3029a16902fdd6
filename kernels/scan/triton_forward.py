# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The scan's forward kernels: tasks of sequences, and the ends of chunks of long ones.

Both walk through time with the state in registers. BLOCK_T events are one tile: their rows of u, delta and z
are loaded together, step sizes and gates computed on the tile, and its events unrolled, so that the loads
and the exponentials of one event overlap with another's.
"""

import triton
import triton.language as tl

from recsys.kernels.scan.triton_steps import (
    EVENTS,
    FIRST_EVENT,
    SEQUENCE,
    SLOT,
    advance,
    load_channels,
    load_events,
    load_field,
    load_projection,
    load_states,
    locate,
    point_events,
    point_states,
    put,
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
    d_inner,
    d_state,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Scan one group's tasks for one block of channels.

    A task starts from its sequence's initial state or from its chunk's row of `carries`. `kept` receives
    the state before each KEEP-th event of a sequence, in row event // KEEP - 1: two such events are never
    less than KEEP apart, so that rows do not collide.
    """
    group, c, s, own, real, inside = locate(d_inner, d_state, SPLIT, BLOCK_D, BLOCK_S)
    rows = tl.arange(0, BLOCK_T)[:, None]
    columns = c[None, :]
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    if D is not None:
        skip = load_channels(D, c, d_inner)[None, :]
    if bias is not None:
        lift = load_channels(bias, c, d_inner)[None, :]
    for task in range(tl.load(bounds + group), tl.load(bounds + group + 1)):
        row = load_field(tasks, task, FIRST_EVENT).to(tl.int64)
        events = load_field(tasks, task, EVENTS)
        sequence = load_field(tasks, task, SEQUENCE)
        slot = load_field(tasks, task, SLOT)
        begin = tl.load(offsets + sequence).to(tl.int64)
        state_at = sequence.to(tl.int64) * d_inner * d_state
        h = tl.zeros((SPLIT, BLOCK_D, BLOCK_S // SPLIT), tl.float32)
        if initial is not None:
            h += tl.load(point_states(initial + state_at, own, s), mask=inside & (slot < 0), other=0.0)
        if carries is not None:
            carry_at = slot.to(tl.int64) * d_inner * d_state
            h += tl.load(point_states(carries + carry_at, own, s), mask=inside & (slot >= 0), other=0.0)
        for t in range(0, events, BLOCK_T):
            here = row + t
            if kept is not None:
                mark = (t % KEEP == 0) & (here > begin)
                if mark:
                    tl.store(
                        point_states(kept + (here // KEEP - 1) * d_inner * d_state, own, s), h, mask=inside
                    )
            inner = (t + rows < events) & real
            raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
            value = load_events(u + here * u_row, columns, rows, u_row, inner)
            if z is not None:
                gate = load_events(z + here * z_row, columns, rows, z_row, inner)
            if bias is not None:
                raw += lift
            step = step_sizes(raw, inner, SOFTPLUS)
            push = step * value
            out = step * 0.0
            for k in tl.static_range(BLOCK_T):
                event = tl.minimum(t + k, events - 1)
                b = load_projection(B, row, event, B_row, s, d_state, WHOLE, ALIGNED)
                read = load_projection(C, row, event, C_row, s, d_state, WHOLE, ALIGNED)
                h = advance(h, step, push, rates, b, rows, k, FMA_EVERY)
                out = put(out, rows, k, sum_states(h * read))
            if D is not None:
                out += skip * value
            if z is not None:
                out *= gate * sigmoid(gate)
            tl.store(point_events(y + here * d_inner, columns, rows, d_inner), out, mask=inner)
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
    d_inner,
    d_state,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Scan one chunk from a state of zero: its end state, and the sum of its steps."""
    slot, c, s, own, real, inside = locate(d_inner, d_state, SPLIT, BLOCK_D, BLOCK_S)
    slot = slot.to(tl.int64)
    rows = tl.arange(0, BLOCK_T)[:, None]
    columns = c[None, :]
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    row = load_field(chunks, slot, FIRST_EVENT).to(tl.int64)
    events = load_field(chunks, slot, EVENTS)
    h = tl.zeros((SPLIT, BLOCK_D, BLOCK_S // SPLIT), tl.float32)
    span = tl.zeros((BLOCK_D,), tl.float32)
    for t in range(0, events, BLOCK_T):
        here = row + t
        inner = (t + rows < events) & real
        raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
        value = load_events(u + here * u_row, columns, rows, u_row, inner)
        if bias is not None:
            raw += load_channels(bias, c, d_inner)[None, :]
        step = step_sizes(raw, inner, SOFTPLUS)
        push = step * value
        span += tl.sum(step, axis=0)
        for k in tl.static_range(BLOCK_T):
            event = tl.minimum(t + k, events - 1)
            b = load_projection(B, row, event, B_row, s, d_state, WHOLE, ALIGNED)
            h = advance(h, step, push, rates, b, rows, k, FMA_EVERY)
    tl.store(point_states(ends + slot * d_inner * d_state, own, s), h, mask=inside)
    tl.store(spans + slot * d_inner + c, span, mask=c < d_inner)
