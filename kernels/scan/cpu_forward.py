"""The scan's forward kernel: one pass over the events, all states of a block of channels in cache."""

import numpy as np

from recsys.kernels.scan.cpu_states import (
    BLOCK_D,
    KEEP,
    PAIR,
    clear_states,
    load_rates,
    load_states,
    save_states,
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
    store,
)
from recsys.kernels.shared.vector.activation import decay, decline, read, sigmoid, softplus, splat_at, write
from recsys.kernels.shared.vector.channel_blocks import (
    load_block,
)

__all__ = ["forward_scratch", "forward_worker"]

# Fields of a record: decay rate, state.
_STATE, _RECORD = PAIR, 2 * PAIR

# Fields of an event's strip, each a block of channels: step size, inflow, D u, silu(z).
_INFLOW, _OUT, _GATE, _STRIP = BLOCK_D, 2 * BLOCK_D, 3 * BLOCK_D, 4 * BLOCK_D


@compiled
def forward_scratch(d_state: Number) -> Number:
    """Return the float32 elements of scratch space that one worker needs."""
    return BLOCK_D // PAIR * d_state * _RECORD + 2 * BLOCK_D + KEEP * _STRIP


@compiled
def forward_worker(
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
    y: Array,
    final: Array,
    kept: Array,
) -> None:
    """Draw tasks and scan them; float32 arrays seen as 1-D, empty ones are absent.

    `kept` (rows, vectors, d_state, LANES) receives the state before each KEEP-th event of a sequence, in row
    event // KEEP - 1: two such events are never less than KEEP apart, so that rows do not collide.
    """
    blocks = (d_inner + BLOCK_D - 1) // BLOCK_D
    kept_row = (d_inner + LANES - 1) // LANES * LANES * d_state
    size = forward_scratch(d_state)
    space = scratch[slot * size : (slot + 1) * size]
    skip = BLOCK_D // PAIR * d_state * _RECORD
    lift = skip + BLOCK_D
    strips = lift + BLOCK_D
    while True:
        task = next_task(queue)
        if task >= len(order) * blocks:
            return
        group, channel = order[task // blocks], task % blocks * BLOCK_D
        count: Number = min(BLOCK_D, d_inner - channel)
        load_rates(A, channel, count, d_state, space, _RECORD)
        load_block(D, channel, count, space[skip:])
        load_block(bias, channel, count, space[lift:])
        for sequence in range(bounds[group], bounds[group + 1]):
            begin, end = np.int64(offsets[sequence]), np.int64(offsets[sequence + 1])
            state_at = (sequence * d_inner + channel) * d_state
            clear_states(space, count, d_state, _RECORD, _STATE)
            if len(initial):
                load_states(initial, state_at, count, d_state, space, _RECORD, _STATE)
            for start in range(begin, end, KEEP):
                stop: Number = min(start + KEEP, end)
                if len(kept) and start > begin:
                    to = (start // KEEP - 1) * kept_row + channel * d_state
                    save_states(space, _RECORD, _STATE, count, d_state, kept, to)
                # Steps and gates of a whole chunk first: their long chains of operations then overlap.
                for t in range(start, stop):
                    for first in range(0, count, LANES):
                        left, here = count - first, channel + first
                        at = strips + (t - start) * _STRIP + first
                        x = add(read(delta, t * delta_row + here, left), load(space, lift + first))
                        step = softplus(x, decline(x)) if softened else x
                        value = read(u, t * u_row + here, left)
                        store(space, at, step)
                        store(space, at + _INFLOW, multiply(step, value))
                        store(space, at + _OUT, multiply(load(space, skip + first), value))
                        if len(z):
                            gate = read(z, t * z_row + here, left)
                            store(space, at + _GATE, multiply(gate, sigmoid(gate, decline(gate))))
                for t in range(start, stop):
                    for first in range(0, count, LANES):
                        at = strips + (t - start) * _STRIP + first
                        step, push = load(space, at), load(space, at + _INFLOW)
                        out = load(space, at + _OUT)
                        state = first // PAIR * d_state * _RECORD + first % PAIR
                        for n in range(d_state):
                            old = load(space, state + _STATE)
                            into = multiply(push, splat_at(B, t * B_row + n))
                            new = fma(decay(step, load(space, state)), old, into)
                            store(space, state + _STATE, new)
                            out = fma(splat_at(C, t * C_row + n), new, out)
                            state += _RECORD
                        if len(z):
                            out = multiply(out, load(space, at + _GATE))
                        write(y, t * d_inner + channel + first, count - first, out)
            if len(final):
                store_states(space, _RECORD, _STATE, count, d_state, final, state_at)
