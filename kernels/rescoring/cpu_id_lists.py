"""Small loops over lists of item ids, each a fraction of what its words in numpy cost for a short list."""

import numpy as np

from recsys.kernels.shared.vector import Array, Number, compiled

_MIX = np.int64(-7046029254386353131)
"""2^64 over the golden ratio, odd (Knuth 1998, section 6.4), as an int64."""


@compiled
def is_sorted_within(ids: Array, stop: Number) -> Number:
    """Whether ids are distinct, ascending and in [0, stop)."""
    before = -1
    fault = False
    for place in range(len(ids)):
        fault |= ids[place] <= before
        before = ids[place]
    return not fault and before < stop


@compiled
def digest(ids: Array) -> Number:
    """A hash of a list of int64, the order included; four chains, followed side by side."""
    a, b, c, d = np.int64(len(ids)), np.int64(1), np.int64(2), np.int64(3)
    whole = len(ids) - len(ids) % 4
    for place in range(0, whole, 4):
        a = (a ^ (a >> 29) ^ ids[place]) * _MIX
        b = (b ^ (b >> 29) ^ ids[place + 1]) * _MIX
        c = (c ^ (c >> 29) ^ ids[place + 2]) * _MIX
        d = (d ^ (d >> 29) ^ ids[place + 3]) * _MIX
    for place in range(whole, len(ids)):
        a = (a ^ (a >> 29) ^ ids[place]) * _MIX
    for other in (b, c, d):
        a = (a ^ (a >> 29) ^ other) * _MIX
    return a


@compiled
def same_lists(left: Array, right: Array) -> Number:
    """Whether two lists of int64 are equal."""
    if len(left) != len(right):
        return False
    differences = 0
    for place in range(len(left)):
        differences |= left[place] ^ right[place]
    return differences == 0


@compiled
def exclude_ids(ids: Array, without: Array) -> Array:
    """The ids that are not among others; all lists ascend."""
    kept = np.empty(len(ids), dtype=np.int64)
    count, other = 0, 0
    for place in range(len(ids)):
        while other < len(without) and without[other] < ids[place]:
            other += 1
        if other < len(without) and without[other] == ids[place]:
            continue
        kept[count] = ids[place]
        count += 1
    return kept[:count].copy()
