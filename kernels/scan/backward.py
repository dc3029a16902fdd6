"""The scan's backward kernel: chunk by chunk from each sequence's end, states computed again.

With g[t] the gradient of the output before the gate and a[t] = exp(dt[t] A), the gradient l[t] of the state
runs backwards, l[t] = C[t] g[t] + a[t+1] l[t+1], and with q[t] = a[t] h[t-1] the others follow:
dC[t] = g h, dB[t] = dt u l, du[t] = D g + dt (B.l), ddt[t] = u (B.l) + A.(l q), dA = sum of dt l q over t.
Of the forward pass only the state before every EVERY-th event is kept; a chunk's a and q stay in cache.
"""

import numpy as np

from recsys.kernels.activation import decay, decline, sigmoid, softplus, splat_at
from recsys.kernels.scan.blocks import (
    BLOCK,
    EVERY,
    PAIR,
    clear_states,
    fill,
    load_block,
    load_rates,
    load_states,
    restore_states,
    store_block,
    store_states,
)
from recsys.kernels.scan.forward import read, write
from recsys.kernels.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    next_ticket,
    splat,
    store,
    subtract,
    sum_lanes,
)

__all__ = ["backward_scratch", "backward_worker"]

# Fields of a state's record: decay rate, state, gradient a l of the state before, sums of dt l q over the
# chunk and over the chunks: one sum over thousands of events would lose two digits.
_STATE, _CARRY, _SLOPE, _TOTAL, _RECORD = (i * PAIR for i in range(1, 6))

# Fields of an event's strip: dt, u, dt u, slope of softplus, g, dy silu'(z). The last three give way to
# the gradients of delta, u and z.
_VALUE, _PUSH, _RISE, _PULL, _GATE, _STRIP = (i * PAIR for i in range(1, 7))

# Fields of a step (an event and a state): a, q. Of a sum over channels: dB, dC.
_STAYS, _STEP = PAIR, 2 * PAIR
_READS, _SUMS = LANES, 2 * LANES

# Fields of the block: D, delta_bias, and the sums of their gradients.
_LIFT, _SUM_D, _SUM_BIAS, _EDGE = (i * BLOCK for i in range(1, 5))

_ZERO = np.float32(0)
_ONE = np.float32(1)
_LN_2 = np.float32(0.6931471805599453)


@compiled
def backward_scratch(states: Number) -> Number:
    """Return the float32 elements of scratch space that one worker needs."""
    return BLOCK // PAIR * states * _RECORD + _EDGE + EVERY * (_STRIP + states * (_STEP + _SUMS))


@compiled
def advance(
    space: Array,
    record: Number,
    strips: Number,
    steps: Number,
    events: Number,
    states: Number,
    B: Array,
    b_at: Number,
    b_row: Number,
) -> None:
    """Run a chunk forward for one vector of channels, keeping a and q of every step."""
    for k in range(events):
        strip, at, to = strips + k * _STRIP, record, steps + k * states * _STEP
        step, push = load(space, strip), load(space, strip + _PUSH)
        for n in range(states):
            fade = decay(step, load(space, at))
            stays = multiply(fade, load(space, at + _STATE))
            store(space, to, fade)
            store(space, to + _STAYS, stays)
            store(space, at + _STATE, fma(push, splat_at(B, b_at + k * b_row + n), stays))
            at += _RECORD
            to += _STEP


@compiled
def retreat(
    space: Array,
    record: Number,
    skip: Number,
    strips: Number,
    steps: Number,
    sums: Number,
    events: Number,
    states: Number,
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
        strip, at = strips + k * _STRIP, record
        from_, sum_at = steps + k * states * _STEP, sums + k * states * _SUMS
        dt_0, dt_1 = load(space, strip), load(space, strip + LANES)
        u_0, u_1 = load(space, strip + _VALUE), load(space, strip + _VALUE + LANES)
        push_0, push_1 = load(space, strip + _PUSH), load(space, strip + _PUSH + LANES)
        g_0, g_1 = load(space, strip + _PULL), load(space, strip + _PULL + LANES)
        out_0, out_1 = multiply(skip_0, u_0), multiply(skip_1, u_1)
        through_0 = splat(_ZERO)  # B.l
        through_1 = splat(_ZERO)
        along_0 = splat(_ZERO)  # A.(l q)
        along_1 = splat(_ZERO)
        for n in range(states):
            b, c = splat_at(B, b_at + k * b_row + n), splat_at(C, c_at + k * c_row + n)
            stays_0, stays_1 = load(space, from_ + _STAYS), load(space, from_ + _STAYS + LANES)
            l_0 = fma(c, g_0, load(space, at + _CARRY))
            l_1 = fma(c, g_1, load(space, at + _CARRY + LANES))
            h_0, h_1 = fma(push_0, b, stays_0), fma(push_1, b, stays_1)
            out_0, out_1 = fma(c, h_0, out_0), fma(c, h_1, out_1)
            through_0, through_1 = fma(b, l_0, through_0), fma(b, l_1, through_1)
            sum_B, sum_C = load(space, sum_at), load(space, sum_at + _READS)
            store(space, sum_at, fma(push_1, l_1, fma(push_0, l_0, sum_B)))
            store(space, sum_at + _READS, fma(g_1, h_1, fma(g_0, h_0, sum_C)))
            lq_0, lq_1 = multiply(l_0, stays_0), multiply(l_1, stays_1)
            along_0 = fma(lq_0, load(space, at), along_0)
            along_1 = fma(lq_1, load(space, at + LANES), along_1)
            store(space, at + _SLOPE, fma(lq_0, dt_0, load(space, at + _SLOPE)))
            store(space, at + _SLOPE + LANES, fma(lq_1, dt_1, load(space, at + _SLOPE + LANES)))
            store(space, at + _CARRY, multiply(l_0, load(space, from_)))
            store(space, at + _CARRY + LANES, multiply(l_1, load(space, from_ + LANES)))
            at += _RECORD
            from_ += _STEP
            sum_at += _SUMS
        along_0 = fma(u_0, through_0, multiply(along_0, splat(_LN_2)))  # the rates are A log2(e)
        along_1 = fma(u_1, through_1, multiply(along_1, splat(_LN_2)))
        rise, pull, gate = strip + _RISE, strip + _PULL, strip + _GATE
        store(space, rise, multiply(along_0, load(space, rise)))
        store(space, rise + LANES, multiply(along_1, load(space, rise + LANES)))
        store(space, pull, fma(skip_0, g_0, multiply(dt_0, through_0)))
        store(space, pull + LANES, fma(skip_1, g_1, multiply(dt_1, through_1)))
        store(space, gate, multiply(out_0, load(space, gate)))
        store(space, gate + LANES, multiply(out_1, load(space, gate + LANES)))


@compiled
def settle(space: Array, count: Number, states: Number) -> None:
    """Add the sums over a chunk to those over all chunks and clear them."""
    for record in range(0, (count + PAIR - 1) // PAIR * states * _RECORD, _RECORD):
        for half in range(0, PAIR, LANES):
            total = record + _TOTAL + half
            store(space, total, add(load(space, total), load(space, record + _SLOPE + half)))
            store(space, record + _SLOPE + half, splat(_ZERO))


@compiled
def backward_worker(
    slot: Number,
    tickets: Array,
    bounds: Array,
    order: Array,
    offsets: Array,
    channels: Number,
    states: Number,
    u: Array,
    u_row: Number,
    delta: Array,
    delta_row: Number,
    A: Array,
    B: Array,
    B_row: Number,
    C: Array,
    C_row: Number,
    D: Array,
    z: Array,
    z_row: Number,
    bias: Array,
    initial: Array,
    softened: Number,
    scratch: Array,
    kept: Array,
    dy: Array,
    dfinal: Array,
    du: Array,
    ddelta: Array,
    dz: Array,
    dinitial: Array,
    dA: Array,
    dB: Array,
    dC: Array,
    dD: Array,
    dbias: Array,
) -> None:
    """Draw pieces and differentiate them; arguments as of `forward_worker`.

    Gradients of events and states are whole; dB and dC (blocks, N, states) are per block of channels, and dA,
    dD and dbias (groups, ...) per group of sequences: the caller adds them up in order.
    """
    blocks = (channels + BLOCK - 1) // BLOCK
    kept_row = (channels + LANES - 1) // LANES * LANES * states
    rows = np.int64(offsets[len(offsets) - 1])
    size = backward_scratch(states)
    space = scratch[slot * size : (slot + 1) * size]
    edge = BLOCK // PAIR * states * _RECORD
    strips = edge + _EDGE
    steps = strips + EVERY * _STRIP
    sums = steps + EVERY * states * _STEP
    while True:
        piece = next_ticket(tickets)
        if piece >= len(order) * blocks:
            return
        group, block = order[piece // blocks], piece % blocks
        channel = block * BLOCK
        count: Number = min(BLOCK, channels - channel)
        load_rates(A, channel, count, states, space, _RECORD)
        clear_states(space, count, states, _RECORD, _STATE)
        clear_states(space, count, states, _RECORD, _SLOPE)
        clear_states(space, count, states, _RECORD, _TOTAL)
        fill(space, edge, _EDGE // LANES, _ZERO)
        load_block(D, channel, count, space[edge:])
        load_block(bias, channel, count, space[edge + _LIFT :])
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * states
            clear_states(space, count, states, _RECORD, _CARRY)
            if len(dfinal):
                load_states(dfinal, state_at, count, states, space, _RECORD, _CARRY)
            for back in range((end - begin + EVERY - 1) // EVERY):
                start = begin + ((end - begin - 1) // EVERY - back) * EVERY
                events: Number = min(EVERY, end - start)
                # Lanes without a channel too: a NaN of another sequence would reach the sums across lanes.
                clear_states(space, count, states, _RECORD, _STATE)
                if start > begin:
                    from_ = (start // EVERY - 1) * kept_row + channel * states
                    restore_states(kept, from_, count, states, space, _RECORD, _STATE)
                elif len(initial):
                    load_states(initial, state_at, count, states, space, _RECORD, _STATE)
                fill(space, sums, 2 * events * states, _ZERO)
                for pair in range(0, count, PAIR):
                    record = pair // PAIR * states * _RECORD
                    for first in range(pair, pair + PAIR, LANES):
                        left, here, half = count - first, channel + first, first - pair
                        for k in range(events):
                            t, at = start + k, strips + k * _STRIP + half
                            x = add(
                                read(delta, t * delta_row + here, left), load(space, edge + _LIFT + first)
                            )
                            value = read(u, t * u_row + here, left)
                            g = read(dy, t * channels + here, left)
                            if softened:
                                fall = decline(x)
                                store(space, at + _RISE, sigmoid(x, fall))
                                x = softplus(x, fall)
                            else:
                                store(space, at + _RISE, splat(_ONE))
                            if len(z):
                                gate = read(z, t * z_row + here, left)
                                open_ = sigmoid(gate, decline(gate))
                                bend = fma(gate, subtract(splat(_ONE), open_), splat(_ONE))
                                store(space, at + _GATE, multiply(g, multiply(open_, bend)))
                                g = multiply(g, multiply(gate, open_))
                            store(space, at, x)
                            store(space, at + _VALUE, value)
                            store(space, at + _PUSH, multiply(x, value))
                            store(space, at + _PULL, g)
                            total = edge + _SUM_D + first
                            store(space, total, fma(g, value, load(space, total)))
                        advance(
                            space,
                            record + half,
                            strips + half,
                            steps + half,
                            events,
                            states,
                            B,
                            start * B_row,
                            B_row,
                        )
                    retreat(
                        space,
                        record,
                        edge + pair,
                        strips,
                        steps,
                        sums,
                        events,
                        states,
                        B,
                        start * B_row,
                        B_row,
                        C,
                        start * C_row,
                        C_row,
                    )
                    for first in range(pair, min(pair + PAIR, count), LANES):
                        left = count - first
                        for k in range(events):
                            to, at = (
                                (start + k) * channels + channel + first,
                                strips + k * _STRIP + first - pair,
                            )
                            rise, total = load(space, at + _RISE), edge + _SUM_BIAS + first
                            store(space, total, add(load(space, total), rise))
                            write(ddelta, to, left, rise)
                            write(du, to, left, load(space, at + _PULL))
                            if len(z):
                                write(dz, to, left, load(space, at + _GATE))
                for i in range(events * states):
                    to = (block * rows + start) * states + i
                    dB[to] = sum_lanes(load(space, sums + i * _SUMS))
                    dC[to] = sum_lanes(load(space, sums + i * _SUMS + _READS))
                settle(space, count, states)
            if len(dinitial):
                store_states(space, _RECORD, _CARRY, count, states, dinitial, state_at)
        store_states(space, _RECORD, _TOTAL, count, states, dA, (group * channels + channel) * states)
        store_block(space[edge + _SUM_D :], dD, group * channels + channel, count)
        store_block(space[edge + _SUM_BIAS :], dbias, group * channels + channel, count)
