"""The scan's backward kernel: chunk by chunk from each sequence's end, states computed again.

With g[t] the gradient of the output before the gate and a[t] = exp(dt[t] A), the gradient l[t] of the state
runs backwards, l[t] = C[t] g[t] + a[t+1] l[t+1], and with q[t] = a[t] h[t-1] the others follow:
dC[t] = g h, dB[t] = dt u l, du[t] = D g + dt (B.l), ddt[t] = u (B.l) + A.(l q), dA = sum of dt l q over t.
Of the forward pass only the state before every KEEP-th event is kept; a chunk's a and q stay in cache.
"""

import numpy as np

from recsys.kernels.scan.cpu_chunk import (
    CARRY,
    GATE,
    PULL,
    PUSH,
    READS,
    RECORD,
    RISE,
    SLOPE,
    STATE,
    STEP,
    STRIP,
    SUMS,
    TOTAL,
    VALUE,
    advance,
    retreat,
    settle,
)
from recsys.kernels.scan.cpu_states import (
    BLOCK_D,
    KEEP,
    PAIR,
    clear_states,
    load_rates,
    load_states,
    restore_states,
    store_states,
)
from recsys.kernels.shared.vector import (
    LANES,
    Array,
    Number,
    add,
    compiled,
    fma,
    load,
    multiply,
    next_task,
    splat,
    store,
    subtract,
    sum_lanes,
)
from recsys.kernels.shared.vector.activation import decline, read, sigmoid, softplus, write
from recsys.kernels.shared.vector.channel_blocks import (
    fill,
    load_block,
    store_block,
)

__all__ = ["backward_scratch", "backward_worker"]

# Fields of the block: D, delta_bias, and the sums of their gradients.
_LIFT, _SUM_D, _SUM_BIAS, _EDGE = (i * BLOCK_D for i in range(1, 5))

_ZERO = np.float32(0)
_ONE = np.float32(1)


@compiled
def backward_scratch(d_state: Number) -> Number:
    """Return the float32 elements of scratch space that one worker needs."""
    return BLOCK_D // PAIR * d_state * RECORD + _EDGE + KEEP * (STRIP + d_state * (STEP + SUMS))


@compiled
def backward_worker(
    slot: Number,
    queue: Array,
    bounds: Array,
    order: Array,
    offsets: Array,
    d_inner: Number,
    d_state: Number,
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
    """Draw tasks and differentiate them; arguments as of `forward_worker`.

    Gradients of events and states are whole; dB and dC (blocks, N, d_state) are per block of channels, and
    dA, dD and dbias (groups, ...) per group of sequences: the caller adds them up in order.
    """
    blocks = (d_inner + BLOCK_D - 1) // BLOCK_D
    kept_row = (d_inner + LANES - 1) // LANES * LANES * d_state
    rows = np.int64(offsets[len(offsets) - 1])
    size = backward_scratch(d_state)
    space = scratch[slot * size : (slot + 1) * size]
    edge = BLOCK_D // PAIR * d_state * RECORD
    strips = edge + _EDGE
    steps = strips + KEEP * STRIP
    sums = steps + KEEP * d_state * STEP
    while True:
        task = next_task(queue)
        if task >= len(order) * blocks:
            return
        group, block = order[task // blocks], task % blocks
        channel = block * BLOCK_D
        count: Number = min(BLOCK_D, d_inner - channel)
        load_rates(A, channel, count, d_state, space, RECORD)
        clear_states(space, count, d_state, RECORD, STATE)
        clear_states(space, count, d_state, RECORD, SLOPE)
        clear_states(space, count, d_state, RECORD, TOTAL)
        fill(space, edge, _EDGE // LANES, _ZERO)
        load_block(D, channel, count, space[edge:])
        load_block(bias, channel, count, space[edge + _LIFT :])
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * d_inner + channel) * d_state
            clear_states(space, count, d_state, RECORD, CARRY)
            if len(dfinal):
                load_states(dfinal, state_at, count, d_state, space, RECORD, CARRY)
            for back in range((end - begin + KEEP - 1) // KEEP):
                start = begin + ((end - begin - 1) // KEEP - back) * KEEP
                events: Number = min(KEEP, end - start)
                # Lanes without a channel too: a NaN of another sequence would reach the sums across lanes.
                clear_states(space, count, d_state, RECORD, STATE)
                if start > begin:
                    from_ = (start // KEEP - 1) * kept_row + channel * d_state
                    restore_states(kept, from_, count, d_state, space, RECORD, STATE)
                elif len(initial):
                    load_states(initial, state_at, count, d_state, space, RECORD, STATE)
                fill(space, sums, 2 * events * d_state, _ZERO)
                for pair in range(0, count, PAIR):
                    record = pair // PAIR * d_state * RECORD
                    for first in range(pair, pair + PAIR, LANES):
                        left, here, half = count - first, channel + first, first - pair
                        for k in range(events):
                            t, at = start + k, strips + k * STRIP + half
                            x = add(
                                read(delta, t * delta_row + here, left), load(space, edge + _LIFT + first)
                            )
                            value = read(u, t * u_row + here, left)
                            g = read(dy, t * d_inner + here, left)
                            if softened:
                                fall = decline(x)
                                store(space, at + RISE, sigmoid(x, fall))
                                x = softplus(x, fall)
                            else:
                                store(space, at + RISE, splat(_ONE))
                            if len(z):
                                gate = read(z, t * z_row + here, left)
                                open_ = sigmoid(gate, decline(gate))
                                bend = fma(gate, subtract(splat(_ONE), open_), splat(_ONE))
                                store(space, at + GATE, multiply(g, multiply(open_, bend)))
                                g = multiply(g, multiply(gate, open_))
                            store(space, at, x)
                            store(space, at + VALUE, value)
                            store(space, at + PUSH, multiply(x, value))
                            store(space, at + PULL, g)
                            total = edge + _SUM_D + first
                            store(space, total, fma(g, value, load(space, total)))
                        advance(
                            space,
                            record + half,
                            strips + half,
                            steps + half,
                            events,
                            d_state,
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
                        d_state,
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
                                (start + k) * d_inner + channel + first,
                                strips + k * STRIP + first - pair,
                            )
                            rise, total = load(space, at + RISE), edge + _SUM_BIAS + first
                            store(space, total, add(load(space, total), rise))
                            write(ddelta, to, left, rise)
                            write(du, to, left, load(space, at + PULL))
                            if len(z):
                                write(dz, to, left, load(space, at + GATE))
                for i in range(events * d_state):
                    to = (block * rows + start) * d_state + i
                    dB[to] = sum_lanes(load(space, sums + i * SUMS))
                    dC[to] = sum_lanes(load(space, sums + i * SUMS + READS))
                settle(space, count, d_state)
            if len(dinitial):
                store_states(space, RECORD, CARRY, count, d_state, dinitial, state_at)
        store_states(space, RECORD, TOTAL, count, d_state, dA, (group * d_inner + channel) * d_state)
        store_block(space[edge + _SUM_D :], dD, group * d_inner + channel, count)
        store_block(space[edge + _SUM_BIAS :], dbias, group * d_inner + channel, count)
