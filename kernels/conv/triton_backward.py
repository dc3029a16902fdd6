# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The convolution's backward kernels on a GPU.

With g the gradient before the activation, dx of an event is the sum over k of weight[:, WIDTH - 1 - k] g k
events later, where the later event's position is at least k. Recomputing g at every shift would cost WIDTH
activations an element; so a lane of threads walks down BLOCK_T rows and keeps its last inputs and the
gradients still being added up in registers: each row is read and activated once, but for the WIDTH - 1 rows
at which lanes overlap.
"""

import triton
import triton.language as tl

from recsys.kernels.conv.triton_forward import initial_input
from recsys.kernels.shared.triton_math import LOG2_E

READ_AHEAD = tl.constexpr(4)
"""Rows that are loaded before the first of them is worked on: loads cannot pass the stores in between."""


@triton.jit
def before_activation(g, total):
    """Take a gradient of silu(total) to one of total."""
    open_ = 1.0 / (1.0 + tl.exp2(total * -LOG2_E))
    # Where the exponential overflows, open_ is 0 and the derivative 0 * (1 + total) is 0 too.
    return g * (open_ * tl.fma(total, 1.0 - open_, tl.full(total.shape, 1.0, tl.float32)))


@triton.jit
def fetch(x, dy, positions, rows, columns, exists, n_events, x_row, dy_row):
    """Load input, gradient and position of a row for each lane: 0, 0 and -1 outside the batch."""
    inside = (rows >= 0) & (rows < n_events)
    mask = inside[:, None] & exists[None, :]
    value = tl.load(x + (rows * x_row)[:, None] + columns[None, :], mask=mask, other=0.0)
    g = tl.load(dy + (rows * dy_row)[:, None] + columns[None, :], mask=mask, other=0.0)
    return value, g, tl.load(positions + rows, mask=inside, other=-1)


@triton.jit
def add_initial(value, k, position, initial, sequence, columns, exists, channels, WIDTH: tl.constexpr):
    """Add the input of the initial state k rows back to `value`, which is 0 where there is one."""
    before = ((position >= 0) & (position < k))[:, None] & exists[None, :]
    return value + initial_input(initial, sequence, columns, channels, position - k, before, WIDTH)


@triton.jit(do_not_specialize=["n_events"])
def backward_kernel(
    x,
    weight,
    bias,
    positions,
    sequences,
    offsets,
    initial,
    dy,
    dfinal,
    dx,
    parts,
    n_events,
    channels,
    x_row,
    dy_row,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    LANES: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write dx, and this program's share of dweight (and dbias) to `parts`.

    Each lane owns BLOCK_T - WIDTH + 1 rows and walks on through the next WIDTH - 1, whose g the last ones
    need.
    parts: (programs along the events, WIDTH + 1, channels), the bias' row last and absent without a bias.
    """
    PAST: tl.constexpr = WIDTH - 1
    blocks = tl.cdiv(channels, BLOCK_D)
    tile = tl.program_id(0) // blocks
    columns = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    exists = columns < channels
    first = (tile.to(tl.int64) * LANES + tl.arange(0, LANES)) * (BLOCK_T - PAST)

    # v0 multiplies the current event, v1 the one before it, and so on.
    taps = weight + tl.broadcast_to(columns[None, :], [LANES, BLOCK_D]) * WIDTH
    v0 = tl.load(taps + PAST, mask=exists[None, :], other=0.0)
    v1 = tl.load(taps + PAST - 1, mask=exists[None, :], other=0.0)
    if WIDTH > 2:
        v2 = tl.load(taps + PAST - 2, mask=exists[None, :], other=0.0)
    if WIDTH > 3:
        v3 = tl.load(taps, mask=exists[None, :], other=0.0)
    lift = tl.zeros([LANES, BLOCK_D], tl.float32)
    if bias is not None:
        lift += tl.load(bias + columns, mask=exists, other=0.0)[None, :]

    zero = tl.zeros([LANES, BLOCK_D], tl.float32)
    x1, x2, x3 = zero, zero, zero  # inputs of the last rows
    s0, s1, s2, s3, s = zero, zero, zero, zero, zero  # sums for dweight and dbias
    d1, d2, d3 = zero, zero, zero  # dx of the last rows, not yet complete
    x1 = fetch(x, dy, positions, first - 1, columns, exists, n_events, x_row, dy_row)[0].to(tl.float32)
    if WIDTH > 2:
        x2 = fetch(x, dy, positions, first - 2, columns, exists, n_events, x_row, dy_row)[0].to(tl.float32)
    if WIDTH > 3:
        x3 = fetch(x, dy, positions, first - 3, columns, exists, n_events, x_row, dy_row)[0].to(tl.float32)

    for block in range(BLOCK_T // READ_AHEAD):
        row = first + block * READ_AHEAD
        xa, ga, pa = fetch(x, dy, positions, row, columns, exists, n_events, x_row, dy_row)
        xb, gb, pb = fetch(x, dy, positions, row + 1, columns, exists, n_events, x_row, dy_row)
        xc, gc, pc = fetch(x, dy, positions, row + 2, columns, exists, n_events, x_row, dy_row)
        xd, gd, pd = fetch(x, dy, positions, row + 3, columns, exists, n_events, x_row, dy_row)
        for i in tl.static_range(READ_AHEAD):
            x0 = (xa if i == 0 else (xb if i == 1 else (xc if i == 2 else xd))).to(tl.float32)
            g = (ga if i == 0 else (gb if i == 1 else (gc if i == 2 else gd))).to(tl.float32)
            position = pa if i == 0 else (pb if i == 1 else (pc if i == 2 else pd))
            sequence = position
            if initial is not None or dfinal is not None:
                sequence = tl.load(sequences + row + i, mask=position >= 0, other=0)

            t1 = tl.where((position >= 1)[:, None], x1, 0.0)
            if WIDTH > 2:
                t2 = tl.where((position >= 2)[:, None], x2, 0.0)
            if WIDTH > 3:
                t3 = tl.where((position >= 3)[:, None], x3, 0.0)
            if initial is not None:
                t1 = add_initial(t1, 1, position, initial, sequence, columns, exists, channels, WIDTH)
                if WIDTH > 2:
                    t2 = add_initial(t2, 2, position, initial, sequence, columns, exists, channels, WIDTH)
                if WIDTH > 3:
                    t3 = add_initial(t3, 3, position, initial, sequence, columns, exists, channels, WIDTH)
            if GATED:
                total = tl.fma(v1, t1, tl.fma(v0, x0, lift))
                if WIDTH > 2:
                    total = tl.fma(v2, t2, total)
                if WIDTH > 3:
                    total = tl.fma(v3, t3, total)
                g = before_activation(g, total)
            g = tl.where((position >= 0)[:, None], g, 0.0)

            step = block * READ_AHEAD + i
            own = tl.where(step < BLOCK_T - PAST, g, 0.0)
            s0 = tl.fma(own, x0, s0)
            s1 = tl.fma(own, t1, s1)
            if WIDTH > 2:
                s2 = tl.fma(own, t2, s2)
            if WIDTH > 3:
                s3 = tl.fma(own, t3, s3)
            if bias is not None:
                s += own

            begun = zero
            if dfinal is not None:
                # An event among the last PAST is an input of what follows: its column of the final state.
                end = tl.load(offsets + sequence + 1, mask=position >= 0, other=0)
                after = (end - 1 - (row + i)).to(tl.int32)
                last = ((position >= 0) & (after < PAST))[:, None] & exists[None, :]
                begun = initial_input(dfinal, sequence, columns, channels, -1 - after, last, WIDTH)
            begun = tl.fma(v0, g, begun)
            g1 = tl.where((position >= 1)[:, None], g, 0.0)
            if WIDTH == 2:
                done, d1 = tl.fma(v1, g1, d1), begun
            elif WIDTH == 3:
                g2 = tl.where((position >= 2)[:, None], g, 0.0)
                done = tl.fma(v2, g2, d2)
                d2, d1 = tl.fma(v1, g1, d1), begun
            else:
                g2 = tl.where((position >= 2)[:, None], g, 0.0)
                g3 = tl.where((position >= 3)[:, None], g, 0.0)
                done = tl.fma(v3, g3, d3)
                d3 = tl.fma(v2, g2, d2)
                d2, d1 = tl.fma(v1, g1, d1), begun
            target = row + i - PAST
            written = ((target < n_events) & (step >= PAST))[:, None] & exists[None, :]
            at = (target * channels)[:, None] + columns[None, :]
            tl.store(dx + at, done.to(dx.dtype.element_ty), mask=written)
            if WIDTH > 3:
                x3 = x2
            if WIDTH > 2:
                x2 = x1
            x1 = x0

    at = tile.to(tl.int64) * (WIDTH + 1) * channels + columns
    tl.store(parts + at + PAST * channels, tl.sum(s0, 0), mask=exists)
    tl.store(parts + at + (PAST - 1) * channels, tl.sum(s1, 0), mask=exists)
    if WIDTH > 2:
        tl.store(parts + at + (PAST - 2) * channels, tl.sum(s2, 0), mask=exists)
    if WIDTH > 3:
        tl.store(parts + at, tl.sum(s3, 0), mask=exists)
    if bias is not None:
        tl.store(parts + at + WIDTH * channels, tl.sum(s, 0), mask=exists)


@triton.jit(do_not_specialize=["n_parts"])
def add_parts_kernel(
    parts,
    dweight,
    dbias,
    n_parts,
    channels,
    WIDTH: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Add one row of all `parts` up in a fixed order: a tap of dweight (channels, WIDTH), or dbias."""
    blocks = tl.cdiv(channels, BLOCK_D)
    row = tl.program_id(0) // blocks
    columns = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    exists = columns < channels
    total = tl.zeros([BLOCK_P, BLOCK_D], tl.float32)
    for start in range(0, n_parts, BLOCK_P):
        tile = start + tl.arange(0, BLOCK_P)
        at = ((tile.to(tl.int64) * (WIDTH + 1) + row) * channels)[:, None] + columns[None, :]
        total += tl.load(parts + at, mask=(tile < n_parts)[:, None] & exists[None, :], other=0.0)
    result = tl.sum(total, 0)
    tl.store(dweight + columns * WIDTH + row, result, mask=exists & (row < WIDTH))
    if dbias is not None:
        tl.store(dbias + columns, result, mask=exists & (row == WIDTH))


@triton.jit(do_not_specialize=["n_sequences"])
def initial_state_kernel(
    x,
    weight,
    bias,
    offsets,
    initial,
    dy,
    dfinal,
    dinitial,
    n_sequences,
    channels,
    x_row,
    dy_row,
    WIDTH: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write the gradient of the initial state of BLOCK_B sequences: from their first WIDTH - 1 events."""
    PAST: tl.constexpr = WIDTH - 1
    blocks = tl.cdiv(channels, BLOCK_D)
    sequence = tl.program_id(0) // blocks * BLOCK_B + tl.arange(0, BLOCK_B)
    columns = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    inside, exists = sequence < n_sequences, columns < channels
    begin = tl.load(offsets + sequence, mask=inside, other=0).to(tl.int64)
    length = tl.load(offsets + sequence + 1, mask=inside, other=0) - begin
    start = (sequence.to(tl.int64) * channels)[:, None] + columns[None, :]
    for j in tl.static_range(PAST):
        grad = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
        if dfinal is not None:
            # A sequence shorter than PAST still holds this input in its final state.
            kept = (inside & (length <= j))[:, None] & exists[None, :]
            grad += tl.load(dfinal + start * PAST + (j - length)[:, None], mask=kept, other=0.0)
        for t in tl.static_range(j + 1):  # events that read it
            here = (inside & (t < length))[:, None] & exists[None, :]
            g = tl.load(dy + ((begin + t) * dy_row)[:, None] + columns[None, :], mask=here, other=0.0)
            g = g.to(tl.float32)
            if GATED:
                total = tl.zeros([BLOCK_B, BLOCK_D], tl.float32)
                if bias is not None:
                    total += tl.load(bias + columns, mask=exists, other=0.0)[None, :]
                for k in tl.static_range(WIDTH):
                    tap = tl.load(weight + columns * WIDTH + PAST - k, mask=exists, other=0.0)
                    if k <= t:
                        at = ((begin + t - k) * x_row)[:, None] + columns[None, :]
                        value = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
                    else:
                        value = tl.load(initial + start * PAST + (PAST + t - k), mask=here, other=0.0)
                    total = tl.fma(tl.broadcast_to(tap[None, :], [BLOCK_B, BLOCK_D]), value, total)
                g = tl.where(here, before_activation(g, total), 0.0)
            tap = tl.load(weight + columns * WIDTH + (j - t), mask=exists, other=0.0)
            grad = tl.fma(tl.broadcast_to(tap[None, :], [BLOCK_B, BLOCK_D]), g, grad)
        tl.store(dinitial + start * PAST + j, grad, mask=inside[:, None] & exists[None, :])
