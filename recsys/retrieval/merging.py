"""Several ranked answers to the same queries become one."""

from collections.abc import Sequence

import numpy as np

from recsys.retrieval.filters import Ints
from recsys.retrieval.metric import Floats32


def merge_best(parts: Sequence[tuple[Floats32, Ints]], k: int) -> tuple[Floats32, Ints]:
    """Keep the k best of several answers, each item once with its best score.

    If every part holds the k best of its own source, the result holds the k best of all of them: an item
    that is missing from the part where it scores best is beaten there by k others.

    Args:
        parts: (b, m) scores and ids, -1 where there was no answer.
        k: answers to keep.

    Returns:
        (b, k) scores and ids by (score descending, id ascending), -inf and -1 at the end.
    """
    scores = np.concatenate([part[0] for part in parts], axis=1)
    ids = np.concatenate([part[1] for part in parts], axis=1)
    if scores.shape[1] < k:
        gap = ((0, 0), (0, k - scores.shape[1]))
        scores = np.pad(scores, gap, constant_values=-np.inf)
        ids = np.pad(ids, gap, constant_values=-1)
    # By id, best score first: an item's later mentions follow its best one.
    order = np.lexsort((-scores, ids), axis=-1)
    by_id = np.take_along_axis(ids, order, axis=1)
    repeated = np.zeros(ids.shape, dtype=np.bool_)
    np.put_along_axis(repeated, order[:, 1:], by_id[:, 1:] == by_id[:, :-1], axis=1)
    ids = np.where(repeated, -1, ids)
    scores = np.where(ids < 0, np.float32(-np.inf), scores)
    # Fillers sort behind every item, also behind one that scores -inf.
    last = np.where(ids < 0, np.iinfo(np.int64).max, ids)
    order = np.lexsort((last, -scores), axis=-1)[:, :k]
    best: Floats32 = np.take_along_axis(scores, order, axis=1)
    return best, np.take_along_axis(ids, order, axis=1)
