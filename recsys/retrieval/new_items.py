"""Vectors for items that nobody has met: made of known items', until training gives them their own."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArgumentError
from recsys.retrieval.metric import Floats32


def blend(vectors: NDArray[np.floating[Any]], weights: Any = None) -> Floats32:
    """A vector for a new item: the weighted mean of known items' vectors.

    The mean is shorter than the vectors that it averages, the more so the less they agree, so by inner
    product a new item starts a little behind them: they have been seen to be wanted and it has not.

    Args:
        vectors: (n, d) of its nearest known items, or of all items of its category.
        weights: (n,) positive, e.g. similarities; None for equal ones.

    Returns:
        (d,) float32.

    Raises:
        ArgumentError: no vectors, or weights that are not positive and one per vector.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    if wide.ndim != 2 or len(wide) == 0:
        raise ArgumentError(f"vectors has shape {wide.shape}: give at least one known item's vector")
    if weights is None:
        weights = np.ones(len(wide))
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(wide),) or not bool(np.all(shares > 0)) or not bool(np.isfinite(shares).all()):
        raise ArgumentError(f"weights must be {len(wide)} positive numbers, one per vector")
    blended: Floats32 = (shares @ wide / shares.sum()).astype(np.float32)
    return blended
