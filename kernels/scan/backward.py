"""The scan's backward kernel: chunk by chunk from each sequence's end, states computed again.

With g[t] the gradient of the output before the gate and a[t] = exp(dt[t] A), the gradient l[t] of the state
runs backwards, l[t] = C[t] g[t] + a[t+1] l[t+1], and with q[t] = a[t] h[t-1] the others follow:
dC[t] = g h, dB[t] = dt u l, du[t] = D g + dt (B.l), ddt[t] = u (B.l) + A.(l q), dA = sum of dt l q over t.
Of the forward pass only the state before every EVERY-th event is kept; a chunk's a and q stay in cache.
"""

import numpy as np

from recsys.kernels.activation import decay, decline, sigmoid, softplus, store_first
from recsys.kernels.scan.blocks import (
    BLOCK,
    EVERY,
    fill,
    load_block,
    load_rates,
    load_states,
    store_block,
    store_states,
)
from recsys.kernels.scan.forward import read
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

_ZERO = np.float32(0)
_ONE = np.float32(1)
_LN_2 = np.float32(0.6931471805599453)


@compiled
def backward_scratch(states: Number) -> Number:
    """Return the float32 elements of scratch space that one worker needs."""
    return BLOCK * (4 * states + 4) + EVERY * LANES * (4 * states + 6)


@compiled
def write(target: Array, at: Number, left: Number, vector: Array, from_: Number) -> None:
    """Store a vector of scratch space of which the first `left` lanes exist."""
    if left >= LANES:
        store(target, at, load(vector, from_))
    else:
        store_first(target, at, left, load(vector, from_))


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
    vectors = (channels + LANES - 1) // LANES
    total = np.int64(offsets[len(offsets) - 1])
    area, tile, strip = BLOCK * states, EVERY * LANES * states, EVERY * LANES
    at = slot * backward_scratch(states)
    rates, at = scratch[at : at + area], at + area
    carry, at = scratch[at : at + area], at + area
    slopes, at = scratch[at : at + area], at + area
    h, at = scratch[at : at + area], at + area
    skip, at = scratch[at : at + BLOCK], at + BLOCK
    lift, at = scratch[at : at + BLOCK], at + BLOCK
    sum_D, at = scratch[at : at + BLOCK], at + BLOCK
    sum_bias, at = scratch[at : at + BLOCK], at + BLOCK
    decays, at = scratch[at : at + tile], at + tile
    carried, at = scratch[at : at + tile], at + tile
    tile_B, at = scratch[at : at + tile], at + tile
    tile_C, at = scratch[at : at + tile], at + tile
    dt, at = scratch[at : at + strip], at + strip
    values, at = scratch[at : at + strip], at + strip
    inflow, at = scratch[at : at + strip], at + strip
    rise, at = scratch[at : at + strip], at + strip
    pull, at = scratch[at : at + strip], at + strip
    gates = scratch[at : at + strip]
    while True:
        piece = next_ticket(tickets)
        if piece >= len(order) * blocks:
            return
        group, block = order[piece // blocks], piece % blocks
        channel = block * BLOCK
        count = min(BLOCK, channels - channel)
        width = (count + LANES - 1) // LANES
        load_rates(A, channel, count, states, rates)
        load_block(D, channel, count, skip)
        load_block(bias, channel, count, lift)
        fill(slopes, 0, width * states, _ZERO)
        fill(sum_D, 0, width, _ZERO)
        fill(sum_bias, 0, width, _ZERO)
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * states
            if len(dfinal):
                load_states(dfinal, state_at, count, states, carry)
            else:
                fill(carry, 0, width * states, _ZERO)
            for back in range((end - begin + EVERY - 1) // EVERY):
                start = begin + ((end - begin - 1) // EVERY - back) * EVERY
                events = min(EVERY, end - start)
                if start > begin:
                    from_ = ((start // EVERY - 1) * vectors + channel // LANES) * states * LANES
                    for i in range(0, width * states * LANES, LANES):
                        store(h, i, load(kept, from_ + i))
                elif len(initial):
                    load_states(initial, state_at, count, states, h)
                else:
                    fill(h, 0, width * states, _ZERO)
                fill(tile_B, 0, events * states, _ZERO)
                fill(tile_C, 0, events * states, _ZERO)
                for first in range(0, count, LANES):
                    left, here = count - first, channel + first
                    base = first * states
                    for k in range(events):
                        t, to = start + k, k * LANES
                        x = add(read(delta, t * delta_row + here, left), load(lift, first))
                        value = read(u, t * u_row + here, left)
                        push = read(dy, t * channels + here, left)
                        if softened:
                            fall = decline(x)
                            store(rise, to, sigmoid(x, fall))
                            x = softplus(x, fall)
                        else:
                            store(rise, to, splat(_ONE))
                        if len(z):
                            gate = read(z, t * z_row + here, left)
                            open_ = sigmoid(gate, decline(gate))
                            bend = fma(gate, subtract(splat(_ONE), open_), splat(_ONE))
                            store(gates, to, multiply(push, multiply(open_, bend)))
                            push = multiply(push, multiply(gate, open_))
                        store(dt, to, x)
                        store(values, to, value)
                        store(inflow, to, multiply(x, value))
                        store(pull, to, push)
                        store(sum_D, first, fma(push, value, load(sum_D, first)))
                    for k in range(events):
                        step, push = load(dt, k * LANES), load(inflow, k * LANES)
                        b_at, to, at = (start + k) * B_row, k * states * LANES, base
                        for n in range(states):
                            fade = decay(step, load(rates, at))
                            stays = multiply(fade, load(h, at))
                            store(decays, to, fade)
                            store(carried, to, stays)
                            store(h, at, fma(push, splat(B[b_at + n]), stays))
                            at += LANES
                            to += LANES
                    for k in range(events - 1, -1, -1):
                        t, to, at = start + k, k * states * LANES, base
                        b_at, c_at = t * B_row, t * C_row
                        step, value = load(dt, k * LANES), load(values, k * LANES)
                        push, g = load(inflow, k * LANES), load(pull, k * LANES)
                        out = multiply(load(skip, first), value)
                        through = splat(_ZERO)
                        along = splat(_ZERO)
                        for n in range(states):
                            weight, stays = splat(B[b_at + n]), load(carried, to)
                            reads = splat(C[c_at + n])
                            grad = fma(reads, g, load(carry, at))
                            state = fma(push, weight, stays)
                            out = fma(reads, state, out)
                            store(tile_C, to, fma(g, state, load(tile_C, to)))
                            store(tile_B, to, fma(push, grad, load(tile_B, to)))
                            through = fma(weight, grad, through)
                            pulled = multiply(grad, stays)
                            along = fma(pulled, load(rates, at), along)
                            store(slopes, at, fma(pulled, step, load(slopes, at)))
                            store(carry, at, multiply(grad, load(decays, to)))
                            at += LANES
                            to += LANES
                        to = t * channels + here
                        along = fma(value, through, multiply(along, splat(_LN_2)))
                        along = multiply(along, load(rise, k * LANES))
                        through = fma(load(skip, first), g, multiply(step, through))
                        store(sum_bias, first, add(load(sum_bias, first), along))
                        store(values, k * LANES, through)
                        store(rise, k * LANES, along)
                        write(du, to, left, values, k * LANES)
                        write(ddelta, to, left, rise, k * LANES)
                        if len(z):
                            store(gates, k * LANES, multiply(out, load(gates, k * LANES)))
                            write(dz, to, left, gates, k * LANES)
                for i in range(events * states):
                    to = (block * total + start) * states + i
                    dB[to] = sum_lanes(load(tile_B, i * LANES))
                    dC[to] = sum_lanes(load(tile_C, i * LANES))
            if len(dinitial):
                store_states(carry, count, states, dinitial, state_at)
        store_states(slopes, count, states, dA, (group * channels + channel) * states)
        store_block(sum_D, dD, group * channels + channel, count)
        store_block(sum_bias, dbias, group * channels + channel, count)
