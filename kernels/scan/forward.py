"""The scan's forward kernel: one pass over the events, all states of a channel block in cache."""

from typing import Any

import numpy as np

from recsys.kernels.activation import decay, decline, inlined, load_first, sigmoid, softplus, store_first
from recsys.kernels.scan.blocks import (
    BLOCK,
    EVERY,
    fill,
    load_block,
    load_rates,
    load_states,
    store_states,
)
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
)

__all__ = ["forward_scratch", "forward_worker", "read"]

_ZERO = np.float32(0)


@inlined
def read(array: Any, at: Any, left: Any) -> Any:
    """Load a vector of which the first `left` lanes exist."""
    return load(array, at) if left >= LANES else load_first(array, at, left)


@compiled
def forward_scratch(states: Number) -> Number:
    """Return the float32 elements of scratch space that one worker needs."""
    return BLOCK * (2 * states + 2 + 4 * EVERY)


@compiled
def forward_worker(
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
    y: Array,
    final: Array,
    kept: Array,
) -> None:
    """Draw pieces and scan them; float32 arrays seen as 1-D, empty ones are absent.

    `kept` (rows, vectors, states, LANES) receives the state before each EVERY-th event of a sequence, in row
    event // EVERY - 1: two such events are never less than EVERY apart, so that rows do not collide.
    """
    blocks = (channels + BLOCK - 1) // BLOCK
    vectors = (channels + LANES - 1) // LANES
    area = BLOCK * states
    chunk = BLOCK * EVERY
    at = slot * forward_scratch(states)
    h, at = scratch[at : at + area], at + area
    rates, at = scratch[at : at + area], at + area
    skip, at = scratch[at : at + BLOCK], at + BLOCK
    lift, at = scratch[at : at + BLOCK], at + BLOCK
    dt, at = scratch[at : at + chunk], at + chunk
    inflow, at = scratch[at : at + chunk], at + chunk
    out, at = scratch[at : at + chunk], at + chunk
    gates = scratch[at : at + chunk]
    while True:
        piece = next_ticket(tickets)
        if piece >= len(order) * blocks:
            return
        group, channel = order[piece // blocks], piece % blocks * BLOCK
        count = min(BLOCK, channels - channel)
        load_rates(A, channel, count, states, rates)
        load_block(D, channel, count, skip)
        load_block(bias, channel, count, lift)
        width = (count + LANES - 1) // LANES * states
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * channels + channel) * states
            if len(initial):
                load_states(initial, state_at, count, states, h)
            else:
                fill(h, 0, width, _ZERO)
            for start in range(begin, end, EVERY):
                events = min(EVERY, end - start)
                if len(kept) and start > begin:
                    to = ((start // EVERY - 1) * vectors + channel // LANES) * states * LANES
                    for i in range(0, width * LANES, LANES):
                        store(kept, to + i, load(h, i))
                # Steps and gates of a whole chunk first: their long chains of operations then overlap.
                for t in range(start, start + events):
                    for first in range(0, count, LANES):
                        left = count - first
                        here, to = channel + first, (t - start) * BLOCK + first
                        x = add(read(delta, t * delta_row + here, left), load(lift, first))
                        step = softplus(x, decline(x)) if softened else x
                        value = read(u, t * u_row + here, left)
                        store(dt, to, step)
                        store(inflow, to, multiply(step, value))
                        store(out, to, multiply(load(skip, first), value))
                        if len(z):
                            gate = read(z, t * z_row + here, left)
                            store(gates, to, multiply(gate, sigmoid(gate, decline(gate))))
                for t in range(start, start + events):
                    for first in range(0, count, LANES):
                        here, from_ = channel + first, (t - start) * BLOCK + first
                        step, push, total = load(dt, from_), load(inflow, from_), load(out, from_)
                        at = first * states
                        for n in range(states):
                            into = multiply(push, splat(B[t * B_row + n]))
                            new = fma(decay(step, load(rates, at)), load(h, at), into)
                            store(h, at, new)
                            total = fma(splat(C[t * C_row + n]), new, total)
                            at += LANES
                        if len(z):
                            total = multiply(total, load(gates, from_))
                        if count - first >= LANES:
                            store(y, t * channels + here, total)
                        else:
                            store_first(y, t * channels + here, count - first, total)
            if len(final):
                store_states(h, count, states, final, state_at)
