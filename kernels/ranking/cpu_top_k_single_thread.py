"""Top-k of a batch on one thread, in one compiled call.

A single query that reads a large catalog finds the interpreter's code pushed out of the caches: each call
from Python then costs several times its usual microseconds.
"""

import numpy as np

from recsys.kernels.ranking.cpu_pack import PackedRows, pack_worker
from recsys.kernels.ranking.cpu_top_k import merge_worker, select_worker
from recsys.kernels.ranking.cpu_top_k_exclude import Excluded
from recsys.kernels.shared.vector import LANES, Array, Number, compiled


@compiled
def select_single_thread(
    hidden: Array,
    lanes: Number,
    items: Array,
    width: Number,
    excluded_for_all: Array,
    lists: Excluded,
    taken: Number,
    k: Number,
    capacity: Number,
    out_bits: Array,
    out_ids: Array,
) -> Number:
    """Write each row's k best to out_bits and out_ids (row, k); return 1 where a score is not finite, else 0.

    `hidden` are the rows, each `width` long, `items` the catalog. Other arguments: see the workers.
    """
    rows = len(hidden) // width
    groups = (rows + lanes - 1) // lanes
    padded = (width + LANES - 1) // LANES * LANES
    flat = hidden
    if padded > width:
        flat = np.zeros(rows * padded, dtype=np.float32)
        for row in range(rows):
            for d in range(width):
                flat[row * padded + d] = hidden[row * width + d]
    columns = np.empty(groups * lanes * padded, dtype=np.float32)
    nobody, no_thresholds = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
    queue = np.zeros(3, dtype=np.int64)
    batch = PackedRows(rows, lanes, flat, padded, columns, items, width)
    pack_worker(0, queue[:1], batch, nobody, no_thresholds)
    keys = np.empty(rows * capacity, dtype=np.int64)
    sizes, faults = np.zeros(rows, dtype=np.int64), np.zeros(1, dtype=np.int64)
    select_worker(
        0, queue[1:2], batch, groups, 1, excluded_for_all, lists, taken, capacity, keys, sizes, faults
    )
    merge_worker(0, queue[2:], 1, rows, taken, k, capacity, keys, sizes, out_bits, out_ids)
    return faults[0]
