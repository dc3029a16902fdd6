# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The scan's backward kernels.

With g[t] the gradient of the output before the gate and a[t] = exp(dt[t] A), the gradient l[t] of the state
runs backwards, l[t] = C[t] g[t] + a[t+1] l[t+1], and with q[t] = a[t] h[t-1] the others follow:
dC[t] = g h, dB[t] = dt u l, du[t] = D g + dt (B.l), ddt[t] = u (B.l) + A.(l q), dA = sum of dt l q over t.

Of the forward pass only the state before every KEEP-th event is kept. Such a stretch is scanned again
leaving a state every BLOCK_T events in `scratch`, which stays in cache; from there the last BLOCK_T events
are scanned once more with all their states in registers, then backwards, then the BLOCK_T before them.
"""

import triton
import triton.language as tl

from recsys.kernels.scan.triton_steps import (
    EVENTS,
    FIRST_EVENT,
    SEQUENCE,
    SLOT,
    advance,
    decay,
    load_channels,
    load_events,
    load_field,
    load_projection,
    load_states,
    locate,
    pick,
    point_states,
    step_sizes,
    sum_states,
)
from recsys.kernels.shared.triton_math import LN_2, LOG2_E, sigmoid


@triton.jit
def scan_chunk_starts(
    delta,
    A,
    C,
    z,
    bias,
    dy,
    chunks,
    starts,
    spans,
    delta_row,
    C_row,
    z_row,
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
    """Run one chunk backwards from nothing: gradient of the state before it, and the sum of its steps."""
    slot, c, s, own, real, inside = locate(d_inner, d_state, SPLIT, BLOCK_D, BLOCK_S)
    slot = slot.to(tl.int64)
    rows = tl.arange(0, BLOCK_T)[:, None]
    columns = c[None, :]
    rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
    row = load_field(chunks, slot, FIRST_EVENT).to(tl.int64)
    events = load_field(chunks, slot, EVENTS)
    carry = tl.zeros((SPLIT, BLOCK_D, BLOCK_S // SPLIT), tl.float32)
    span = tl.zeros((BLOCK_D,), tl.float32)
    tiles = (events + BLOCK_T - 1) // BLOCK_T
    for back in range(tiles):
        t = (tiles - 1 - back) * BLOCK_T
        here = row + t
        inner = (t + rows < events) & real
        raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
        pull = load_events(dy + here * d_inner, columns, rows, d_inner, inner)
        if z is not None:
            gate = load_events(z + here * z_row, columns, rows, z_row, inner)
            pull *= gate * sigmoid(gate)
        if bias is not None:
            raw += load_channels(bias, c, d_inner)[None, :]
        step = step_sizes(raw, inner, SOFTPLUS)
        span += tl.sum(step, axis=0)
        for k in tl.static_range(BLOCK_T - 1, -1, -1):
            event = tl.minimum(t + k, events - 1)
            read = load_projection(C, row, event, C_row, s, d_state, WHOLE, ALIGNED)
            carry += pick(pull, rows, k)[None, :, None] * read
            carry *= decay(pick(step, rows, k), rates, k, FMA_EVERY)
    tl.store(point_states(starts + slot * d_inner * d_state, own, s), carry, mask=inside)
    tl.store(spans + slot * d_inner + c, span, mask=c < d_inner)


@triton.jit(do_not_specialize=["groups", "programs", "total"])
def scan_tasks_backward(
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
    kept,
    dy,
    dfinal,
    du,
    ddelta,
    dz,
    dinitial,
    part_A,
    part_B,
    part_C,
    part_D,
    part_bias,
    scratch,
    u_row,
    delta_row,
    B_row,
    C_row,
    z_row,
    d_inner,
    d_state,
    groups,
    programs,
    total,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    HELD: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Differentiate every programs-th group's tasks for one block of channels.

    Gradients of events and states are whole; part_B and part_C (blocks, N, d_state) are per block of
    channels, part_A, part_D and part_bias (programs, ...) per program of a block: the caller adds them up.
    """
    block = tl.program_id(0) % tl.cdiv(d_inner, BLOCK_D)
    program, c, s, own, real, inside = locate(d_inner, d_state, SPLIT, BLOCK_D, BLOCK_S)
    rows = tl.arange(0, BLOCK_T)[:, None]
    columns = c[None, :]
    INNER: tl.constexpr = BLOCK_S // SPLIT
    sums_at = tl.arange(0, SPLIT)[:, None] * INNER + tl.arange(0, INNER)[None, :]
    scratch += program.to(tl.int64) * (KEEP // BLOCK_T) * d_inner * d_state
    size = d_inner * d_state
    if D is not None:
        skip = load_channels(D, c, d_inner)
    sum_A = tl.zeros((SPLIT, BLOCK_D, INNER), tl.float32)
    sum_D = tl.zeros((BLOCK_D,), tl.float32)
    sum_bias = tl.zeros((BLOCK_D,), tl.float32)
    for group in range(program, groups, programs):
        for task in range(tl.load(bounds + group), tl.load(bounds + group + 1)):
            row = load_field(tasks, task, FIRST_EVENT).to(tl.int64)
            events = load_field(tasks, task, EVENTS)
            sequence = load_field(tasks, task, SEQUENCE)
            slot = load_field(tasks, task, SLOT)
            begin = tl.load(offsets + sequence).to(tl.int64)
            state_at = sequence.to(tl.int64) * d_inner * d_state
            carry = tl.zeros((SPLIT, BLOCK_D, INNER), tl.float32)
            if dfinal is not None:
                carry += tl.load(point_states(dfinal + state_at, own, s), mask=inside & (slot < 0), other=0.0)
            if carries is not None:
                carry_at = slot.to(tl.int64) * d_inner * d_state
                carry += tl.load(
                    point_states(carries + carry_at, own, s), mask=inside & (slot >= 0), other=0.0
                )
            stretches = (events + KEEP - 1) // KEEP
            for stretch in range(stretches):
                first = (stretches - 1 - stretch) * KEEP
                tiles = (tl.minimum(events - first, KEEP) + BLOCK_T - 1) // BLOCK_T
                here = row + first
                kept_at = (here // KEEP - 1) * d_inner * d_state
                h = tl.load(point_states(kept + kept_at, own, s), mask=inside & (here > begin), other=0.0)
                if initial is not None:
                    h += tl.load(
                        point_states(initial + state_at, own, s), mask=inside & (here == begin), other=0.0
                    )
                rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                for tile in range(tiles - 1):
                    tl.store(point_states(scratch + tile * size, own, s), h, mask=inside)
                    here = row + first + tile * BLOCK_T
                    raw = load_events(delta + here * delta_row, columns, rows, delta_row, real)
                    value = load_events(u + here * u_row, columns, rows, u_row, real)
                    if bias is not None:
                        raw += tl.load(bias + columns, mask=real, other=0.0).to(tl.float32)
                    step = step_sizes(raw, real, SOFTPLUS)
                    push = step * value
                    for k in tl.static_range(BLOCK_T):
                        b = load_projection(B, here, k, B_row, s, d_state, WHOLE, ALIGNED)
                        h = advance(h, step, push, rates, b, rows, k, FMA_EVERY)
                tl.store(point_states(scratch + (tiles - 1) * size, own, s), h, mask=inside)
                tl.debug_barrier()  # the scratch is written before any thread reads it
                for back in range(tiles):
                    tile = tiles - 1 - back
                    t = first + tile * BLOCK_T
                    here = row + t
                    inner = (t + rows < events) & real
                    raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
                    value = load_events(u + here * u_row, columns, rows, u_row, inner)
                    pull = load_events(dy + here * d_inner, columns, rows, d_inner, inner)
                    if bias is not None:
                        raw += tl.load(bias + columns, mask=real, other=0.0).to(tl.float32)
                    step = step_sizes(raw, inner, SOFTPLUS)
                    if SOFTPLUS:
                        rise = sigmoid(raw)
                    if z is not None:
                        gate = load_events(z + here * z_row, columns, rows, z_row, inner)
                        open_ = sigmoid(gate)
                        bend = pull * open_ * (1.0 + gate * (1.0 - open_))
                        pull *= gate * open_
                    for part in tl.static_range(BLOCK_T // HELD - 1, -1, -1):
                        # Loaded again: what both parts compute is computed twice, not held in registers.
                        rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                        h = load_states(scratch + tile * size, own, s, inside, WHOLE)
                        before = ()
                        for k in tl.static_range((part + 1) * HELD):
                            event = tl.minimum(t + k, events - 1)
                            b = load_projection(B, row, event, B_row, s, d_state, WHOLE, ALIGNED)
                            if k >= part * HELD:
                                before = before + (h,)  # type: ignore[assignment]  # noqa: RUF005
                            step_k = pick(step, rows, k)
                            fade = decay(step_k, rates, k, FMA_EVERY)
                            h = fade * h + (step_k * pick(value, rows, k))[None, :, None] * b
                        for k in tl.static_range((part + 1) * HELD - 1, part * HELD - 1, -1):
                            real_event = t + k < events
                            live = real_event & (c < d_inner)
                            event = tl.minimum(t + k, events - 1)
                            read = load_projection(C, row, event, C_row, s, d_state, WHOLE, ALIGNED)
                            step_k = pick(step, rows, k)
                            value_k = pick(value, rows, k)
                            pull_k = pick(pull, rows, k)
                            sums = (block.to(tl.int64) * total + row) * d_state + event * d_state
                            wanted = real_event & (sums_at < d_state)
                            dC = tl.sum(pull_k[None, :, None] * h, axis=1)
                            tl.store(part_C + sums + sums_at, dC, mask=wanted)
                            into = here * d_inner + c + k * d_inner
                            if z is not None:
                                out = sum_states(h * read)
                                if D is not None:
                                    out += skip * value_k
                                tl.store(dz + into, out * pick(bend, rows, k), mask=live)
                            carry += pull_k[None, :, None] * read
                            dB = tl.sum((step_k * value_k)[None, :, None] * carry, axis=1)
                            tl.store(part_B + sums + sums_at, dB, mask=wanted)
                            # B and the rates no earlier: they would take registers beside C.
                            b = load_projection(B, row, event, B_row, s, d_state, WHOLE, ALIGNED)
                            through = sum_states(carry * b)
                            h = before[k - part * HELD]
                            rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                            carry *= decay(step_k, rates, k, FMA_EVERY)
                            along = carry * h
                            sum_A += along * step_k[None, :, None]
                            rise_k = value_k * through + LN_2 * sum_states(along * rates)
                            if SOFTPLUS:
                                rise_k *= pick(rise, rows, k)
                            tl.store(ddelta + into, rise_k, mask=live)
                            pass_k = step_k * through
                            if D is not None:
                                pass_k += skip * pull_k
                                sum_D += pull_k * value_k
                            if bias is not None:
                                sum_bias += tl.where(live, rise_k, 0.0)
                            tl.store(du + into, pass_k, mask=live)
                tl.debug_barrier()  # the scratch has been read before it is written again
            if dinitial is not None:
                # Of a chunked sequence, `carry_chunks` writes it.
                tl.store(point_states(dinitial + state_at, own, s), carry, mask=inside & (slot < 0))
    part = program.to(tl.int64) * d_inner
    tl.store(point_states(part_A + part * d_state, own, s), sum_A, mask=inside)
    if D is not None:
        tl.store(part_D + part + c, sum_D, mask=c < d_inner)
    if bias is not None:
        tl.store(part_bias + part + c, sum_bias, mask=c < d_inner)
