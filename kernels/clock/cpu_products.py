"""The clock's compiled loop: causal products of features with a scalar decay, in chunks.

out_i = sum over j <= i of 2^(x_j - y_i) (a_i . b_j) c_j, for rows of a sequence in order. Within a chunk the
weights are a tile; what lies before it has been summed into a state S = sum of 2^(x_j - X) b_j c_j^T, with X
the largest x so far, so that no factor exceeds one. Chunks are counted from the sequence's start.

Legend: F features (width of a and b), W width of c; both multiples of LANES.
"""

import numpy as np

from recsys.kernels.shared.vector import (
    LANES,
    PANEL,
    Array,
    Number,
    compiled,
    exp2,
    load,
    multiply,
    next_task,
    product,
    scratch,
    select_le,
    splat,
    store,
    subtract,
    transpose_square,
)

__all__ = ["products_worker"]

_ZERO = np.float32(0.0)


@compiled
def products_worker(
    slot: Number,
    queue: Array,
    order: Array,
    bounds: Array,
    longest: Number,
    chunk: Number,
    reverse: Number,
    decaying: Number,
    a: Array,
    a_log: Array,
    b: Array,
    b_log: Array,
    features: Number,
    c: Array,
    width: Number,
    out: Array,
) -> None:
    """Compute out (N, W) of the sequences in `order` until they are used up.

    Args:
        slot: number of the thread.
        queue: the shared counter.
        order: sequences, longest first.
        bounds: (B + 1,) row bounds.
        longest: length of the longest sequence.
        chunk: rows of a chunk, a multiple of PANEL.
        reverse: whether rows are taken from the sequence's end, the logs' signs turned around.
        decaying: whether a_log and b_log are read; factors are one otherwise.
        a: (N, F) features that ask.
        a_log: (N,) float64, y: base-2 logarithms of times.
        b: (N, F) features that are asked.
        b_log: (N,) float64, x.
        features: F.
        c: (N, W) values.
        width: W.
        out: (N, W), written.
    """
    most = min(chunk, longest)
    state = scratch(features * width)
    scaled = scratch(most * width)
    weights = scratch(most * PANEL)
    tile = scratch(features * PANEL)
    ages = scratch(PANEL)
    powers = scratch(-(-most // LANES) * LANES)
    powers[:] = np.float32(1.0)
    sign = np.float64(-1.0) if reverse else np.float64(1.0)
    while True:
        task = next_task(queue)
        if task >= len(order):
            return
        start: Number = np.int64(bounds[order[task]])
        end: Number = np.int64(bounds[order[task] + 1])
        first, step = (end - 1, -1) if reverse else (start, 1)
        length = end - start
        reached = np.float64(-np.inf)  # X, of the state
        for begin in range(0, length, chunk):
            rows = min(chunk, length - begin)
            row0 = first + step * begin
            if begin > 0:
                product(
                    out, row0 * width, step * width, a, row0 * features, step * features, 1,
                    state, 0, width, rows, width, features, False,
                )  # fmt: skip
                if decaying:
                    for i in range(rows):
                        powers[i] = np.float32(reached - sign * a_log[row0 + step * i])
                    for i in range(0, rows, LANES):
                        store(powers, i, exp2(load(powers, i)))
                    for i in range(rows):
                        row = row0 + step * i
                        factor = splat(powers[i])
                        for d in range(0, width, LANES):
                            store(out, row * width + d, multiply(load(out, row * width + d), factor))
            for block in range(0, rows, PANEL):
                count = min(PANEL, rows - block)
                lanes = PANEL if count > LANES else LANES
                query0 = row0 + step * block
                keys = block + count
                for lane in range(0, lanes, LANES):
                    there = min(count - lane, LANES)
                    for f in range(0, features, LANES):
                        if there > 0:
                            transpose_square(
                                tile, f * lanes + lane, lanes,
                                a, (query0 + step * lane) * features + f, step * features, there,
                            )  # fmt: skip
                product(
                    weights, 0, lanes, b, row0 * features, step * features, 1, tile, 0, lanes,
                    keys, lanes, features, False,
                )  # fmt: skip
                base = sign * a_log[query0] if decaying else 0.0
                if decaying:
                    for lane in range(lanes):
                        row = query0 + step * min(lane, count - 1)
                        ages[lane] = np.float32(sign * a_log[row] - base)
                clear = block + 1  # keys that every lane sees
                for key in range(keys):
                    for at in range(0, lanes, LANES):
                        weight = load(weights, key * lanes + at)
                        if decaying:
                            gap = np.float32(sign * b_log[row0 + step * key] - base)
                            weight = multiply(weight, exp2(subtract(splat(gap), load(ages, at))))
                        if key >= clear:
                            weight = select_le(key, block + at, weight, splat(_ZERO))
                        store(weights, key * lanes + at, weight)
                product(
                    out, query0 * width, step * width, weights, 0, 1, lanes,
                    c, row0 * width, step * width, count, width, keys, begin > 0,
                )  # fmt: skip
            if begin + rows == length:
                continue
            before = reached
            if decaying:
                for i in range(rows):
                    reached = max(reached, sign * b_log[row0 + step * i])
                for i in range(rows):
                    powers[i] = np.float32(sign * b_log[row0 + step * i] - reached)
                for i in range(0, rows, LANES):
                    store(powers, i, exp2(load(powers, i)))
            for i in range(rows):
                row = row0 + step * i
                factor = splat(powers[i])
                for d in range(0, width, LANES):
                    store(scaled, i * width + d, multiply(load(c, row * width + d), factor))
            if begin > 0 and decaying:
                factor = splat(np.float32(2.0 ** (before - reached)))
                for d in range(0, features * width, LANES):
                    store(state, d, multiply(load(state, d), factor))
            product(
                state, 0, width, b, row0 * features, 1, step * features, scaled, 0, width,
                features, width, rows, begin > 0,
            )  # fmt: skip
