"""The compiled loop that fills a sampler's alias table; see `tables`."""

import numpy as np

from recsys.kernels.shared.vector.compiling import Array, compiled

__all__ = ["fill_alias_table"]


@compiled
def fill_alias_table(share: Array, stack: Array, threshold: Array, alias: Array) -> None:
    """Give each slot to one item and an alias, so that item i gets share[i] slots in all.

    `share` (float64, mean 1) is used up. `stack` is scratch: slots below one from its front, others from its
    back.
    """
    n = len(share)
    small, large = 0, n
    for item in range(n - 1, -1, -1):
        alias[item] = item
        if share[item] < 1.0:
            stack[small] = item
            small += 1
        else:
            large -= 1
            stack[large] = item
    while small > 0 and large < n:
        small -= 1
        slot, giver = stack[small], stack[large]
        threshold[slot] = np.int64(np.floor(share[slot] * 4294967296.0 + 0.5))
        alias[slot] = giver
        share[giver] = (share[giver] + share[slot]) - 1.0
        if share[giver] < 1.0:
            large += 1
            stack[small] = giver
            small += 1
    # What is left differs from one by rounding alone.
    for at in range(small):
        threshold[stack[at]] = 4294967296
    for at in range(large, n):
        threshold[stack[at]] = 4294967296
