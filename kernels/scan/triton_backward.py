# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The scan's backward kernels.

With g[t] the gradient of the output before the gate and a[t] = exp(dt[t] A), the gradient l[t] of the state
runs backwards, l[t] = C[t] g[t] + a[t+1] l[t+1], and with q[t] = a[t] h[t-1] the others follow:
dC[t] = g h, dB[t] = dt u l, du[t] = D g + dt (B.l), ddt[t] = u (B.l) + A.(l q), dA = sum of dt l q over t.

Of the forward pass only the state before every KEEP-th event is kept. Such a stretch is scanned again
leaving a state every TIME events in `scratch`, which stays in cache; from there the last TIME events are
scanned once more with all their states in registers, then backwards, then the TIME events before them.
"""

import triton
import triton.language as tl

from recsys.kernels.scan.triton_steps import (
    decay,
    load_events,
    load_state_row,
    load_states,
    pick,
    point_states,
    state_index,
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
    """Run one chunk backwards from nothing: gradient of the state before it, and the sum of its steps."""
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
    carry = tl.zeros((SPLIT, CHANNELS, STATES // SPLIT), tl.float32)
    span = tl.zeros((CHANNELS,), tl.float32)
    tiles = (events + TIME - 1) // TIME
    for back in range(tiles):
        t = (tiles - 1 - back) * TIME
        here = row + t
        inner = (t + rows < events) & real
        raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
        pull = load_events(dy + here * channels, columns, rows, channels, inner)
        if z is not None:
            gate = load_events(z + here * z_row, columns, rows, z_row, inner)
            pull *= gate * sigmoid(gate)
        if bias is not None:
            raw += tl.load(bias + c, mask=c < channels, other=0.0).to(tl.float32)[None, :]
        step = tl.where(inner, step_sizes(raw, SOFTPLUS), 0.0)
        span += tl.sum(step, axis=0)
        for k in tl.static_range(TIME - 1, -1, -1):
            event = tl.minimum(t + k, events - 1)
            read = load_state_row(C + row * C_row + event * C_row, s, states, WHOLE, ALIGNED)
            carry += pick(pull, rows, k)[None, :, None] * read
            carry *= decay(pick(step, rows, k), rates, k, FMA_EVERY)
    tl.store(point_states(starts + slot * channels * states, own, s), carry, mask=inside)
    tl.store(spans + slot * channels + c, span, mask=c < channels)


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
    channels,
    states,
    groups,
    programs,
    total,
    SOFTPLUS: tl.constexpr,
    WHOLE: tl.constexpr,
    ALIGNED: tl.constexpr,
    KEEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
    SPLIT: tl.constexpr,
    TIME: tl.constexpr,
    HELD: tl.constexpr,
    FMA_EVERY: tl.constexpr,
):
    """Differentiate every programs-th group's tasks for one block of channels.

    Gradients of events and states are whole; part_B and part_C (blocks, N, d_state) are per block of
    channels, part_A, part_D and part_bias (programs, ...) per program of a block: the caller adds them up.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    block = tl.program_id(0) % blocks
    program = tl.program_id(0) // blocks
    c = block * CHANNELS + tl.arange(0, CHANNELS)
    s = state_index(SPLIT, STATES)
    rows = tl.arange(0, TIME)[:, None]
    columns = c[None, :]
    real = (c < channels)[None, :]
    own = (c * states)[None, :, None]
    inside = (c < channels)[None, :, None] & (s < states)
    INNER: tl.constexpr = STATES // SPLIT
    sums_at = tl.arange(0, SPLIT)[:, None] * INNER + tl.arange(0, INNER)[None, :]
    scratch += program.to(tl.int64) * (KEEP // TIME) * channels * states
    size = channels * states
    if D is not None:
        skip = tl.load(D + c, mask=c < channels, other=0.0).to(tl.float32)
    slope = tl.zeros((SPLIT, CHANNELS, INNER), tl.float32)
    sum_D = tl.zeros((CHANNELS,), tl.float32)
    sum_bias = tl.zeros((CHANNELS,), tl.float32)
    for group in range(program, groups, programs):
        for task in range(tl.load(bounds + group), tl.load(bounds + group + 1)):
            row = tl.load(tasks + task * 4).to(tl.int64)
            events = tl.load(tasks + task * 4 + 1)
            sequence = tl.load(tasks + task * 4 + 2)
            slot = tl.load(tasks + task * 4 + 3)
            begin = tl.load(offsets + sequence).to(tl.int64)
            state_at = sequence.to(tl.int64) * channels * states
            carry = tl.zeros((SPLIT, CHANNELS, INNER), tl.float32)
            if dfinal is not None:
                carry += tl.load(point_states(dfinal + state_at, own, s), mask=inside & (slot < 0), other=0.0)
            if carries is not None:
                carry_at = slot.to(tl.int64) * channels * states
                carry += tl.load(
                    point_states(carries + carry_at, own, s), mask=inside & (slot >= 0), other=0.0
                )
            stretches = (events + KEEP - 1) // KEEP
            for stretch in range(stretches):
                first = (stretches - 1 - stretch) * KEEP
                tiles = (tl.minimum(events - first, KEEP) + TIME - 1) // TIME
                here = row + first
                kept_at = (here // KEEP - 1) * channels * states
                h = tl.load(point_states(kept + kept_at, own, s), mask=inside & (here > begin), other=0.0)
                if initial is not None:
                    h += tl.load(
                        point_states(initial + state_at, own, s), mask=inside & (here == begin), other=0.0
                    )
                rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                for tile in range(tiles - 1):
                    tl.store(point_states(scratch + tile * size, own, s), h, mask=inside)
                    here = row + first + tile * TIME
                    raw = load_events(delta + here * delta_row, columns, rows, delta_row, real)
                    value = load_events(u + here * u_row, columns, rows, u_row, real)
                    if bias is not None:
                        raw += tl.load(bias + columns, mask=real, other=0.0).to(tl.float32)
                    step = tl.where(real, step_sizes(raw, SOFTPLUS), 0.0)
                    push = step * value
                    for k in tl.static_range(TIME):
                        b = load_state_row(B + here * B_row + k * B_row, s, states, WHOLE, ALIGNED)
                        fade = decay(pick(step, rows, k), rates, k, FMA_EVERY)
                        h = fade * h + pick(push, rows, k)[None, :, None] * b
                tl.store(point_states(scratch + (tiles - 1) * size, own, s), h, mask=inside)
                tl.debug_barrier()  # the scratch is written before any thread reads it
                for back in range(tiles):
                    tile = tiles - 1 - back
                    t = first + tile * TIME
                    here = row + t
                    inner = (t + rows < events) & real
                    raw = load_events(delta + here * delta_row, columns, rows, delta_row, inner)
                    value = load_events(u + here * u_row, columns, rows, u_row, inner)
                    pull = load_events(dy + here * channels, columns, rows, channels, inner)
                    if bias is not None:
                        raw += tl.load(bias + columns, mask=real, other=0.0).to(tl.float32)
                    step = tl.where(inner, step_sizes(raw, SOFTPLUS), 0.0)
                    if SOFTPLUS:
                        rise = sigmoid(raw)
                    if z is not None:
                        gate = load_events(z + here * z_row, columns, rows, z_row, inner)
                        open_ = sigmoid(gate)
                        bend = pull * open_ * (1.0 + gate * (1.0 - open_))
                        pull *= gate * open_
                    for part in tl.static_range(TIME // HELD - 1, -1, -1):
                        # Loaded again: what both parts compute is computed twice, not held in registers.
                        rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                        h = load_states(scratch + tile * size, own, s, inside, WHOLE)
                        before = ()
                        for k in tl.static_range((part + 1) * HELD):
                            event = tl.minimum(t + k, events - 1)
                            b = load_state_row(B + row * B_row + event * B_row, s, states, WHOLE, ALIGNED)
                            if k >= part * HELD:
                                before = before + (h,)  # type: ignore[assignment]  # noqa: RUF005
                            step_k = pick(step, rows, k)
                            fade = decay(step_k, rates, k, FMA_EVERY)
                            h = fade * h + (step_k * pick(value, rows, k))[None, :, None] * b
                        for k in tl.static_range((part + 1) * HELD - 1, part * HELD - 1, -1):
                            real_event = t + k < events
                            live = real_event & (c < channels)
                            event = tl.minimum(t + k, events - 1)
                            read = load_state_row(C + row * C_row + event * C_row, s, states, WHOLE, ALIGNED)
                            step_k = pick(step, rows, k)
                            value_k = pick(value, rows, k)
                            pull_k = pick(pull, rows, k)
                            sums = (block.to(tl.int64) * total + row) * states + event * states
                            wanted = real_event & (sums_at < states)
                            dC = tl.sum(pull_k[None, :, None] * h, axis=1)
                            tl.store(part_C + sums + sums_at, dC, mask=wanted)
                            into = here * channels + c + k * channels
                            if z is not None:
                                out = sum_states(h * read)
                                if D is not None:
                                    out += skip * value_k
                                tl.store(dz + into, out * pick(bend, rows, k), mask=live)
                            carry += pull_k[None, :, None] * read
                            dB = tl.sum((step_k * value_k)[None, :, None] * carry, axis=1)
                            tl.store(part_B + sums + sums_at, dB, mask=wanted)
                            # B and the rates no earlier: they would take registers beside C.
                            b = load_state_row(B + row * B_row + event * B_row, s, states, WHOLE, ALIGNED)
                            through = sum_states(carry * b)
                            h = before[k - part * HELD]
                            rates = load_states(A, own, s, inside, WHOLE) * LOG2_E
                            carry *= decay(step_k, rates, k, FMA_EVERY)
                            along = carry * h
                            slope += along * step_k[None, :, None]
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
    part = program.to(tl.int64) * channels
    tl.store(point_states(part_A + part * states, own, s), slope, mask=inside)
    if D is not None:
        tl.store(part_D + part + c, sum_D, mask=c < channels)
    if bias is not None:
        tl.store(part_bias + part + c, sum_bias, mask=c < channels)
