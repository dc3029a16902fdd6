"""How CPU attention cuts a batch into tasks for the threads."""

import numpy as np
from numpy.typing import NDArray

WHOLE = 2048
"""Sequences longer than this are cut for the threads; backward then computes their scores twice."""

CUT = 256
"""Queries, or keys, of a task of a cut sequence."""

SHORT = 64
"""Sequences up to this length are not sorted."""


def cut_batch(bounds: NDArray[np.int32], heads: int, *, backward: bool) -> tuple[NDArray[np.int64], int]:
    """Cut the batch into tasks, longest sequences first.

    Whether and where a sequence is cut depends on its own length alone, so its bits do too.

    Args:
        bounds: (B + 1,) offsets.
        heads: H.
        backward: whether the tasks are for the backward pass.

    Returns:
        (P, 6) int64 rows (sequence, head, first query, last query, first key, last key), where the backward
        pass computes the query gradient of a task with all keys, the key and value gradients of a task with
        all queries and both of a whole sequence; and the length of the longest sequence.
    """
    lengths = np.diff(bounds)
    # Short sequences balance themselves and stay in the order in which they lie in memory.
    order = np.argsort(np.where(lengths > SHORT, -lengths, 0), kind="stable")
    order = order[lengths[order] > 0]
    long = int(np.count_nonzero(lengths > WHOLE))
    rows = [
        (sequence, head, *cut)
        for sequence in order[:long].tolist()
        for head in range(heads)
        for cut in _cuts(int(lengths[sequence]), backward)
    ]
    whole = np.zeros((len(order) - long, heads, 6), dtype=np.int64)
    whole[:, :, 0] = order[long:, None]
    whole[:, :, 1] = np.arange(heads)
    whole[:, :, 3] = whole[:, :, 5] = lengths[order[long:], None]
    tasks = whole.reshape(-1, 6)
    if rows:
        tasks = np.concatenate([np.array(rows, dtype=np.int64), tasks])
    return tasks, int(lengths.max(initial=0))


def _cuts(length: int, backward: bool) -> list[tuple[int, int, int, int]]:
    starts = range(0, length, CUT)
    cuts = [(start, min(start + CUT, length), 0, length) for start in starts]
    if backward:
        cuts += [(0, length, start, min(start + CUT, length)) for start in starts]
    return cuts


def estimate_steps(bounds: NDArray[np.int32], heads: int, width: int) -> int:
    """Estimate the forward pass in the elementary steps of `threads_for`; 400 per event were measured."""
    lengths = np.diff(bounds).astype(np.int64)
    return heads * int(400 * lengths.sum() + width * int((lengths * lengths).sum()) // 8)
