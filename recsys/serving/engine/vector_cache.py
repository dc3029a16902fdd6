"""Users' query vectors kept between requests: what is asked again costs no encoding."""

from collections.abc import Hashable

import numpy as np
import numpy.typing as npt

from recsys.serving.engine.sized_cache import SizedCache

Vectors = npt.NDArray[np.float32]

_OVERHEAD = 400
"""Bytes of an entry beside its numbers: key, array and places in the tables, 320 of them as measured."""


class VectorCache(SizedCache[Vectors]):
    """Vectors by key; (s, d) float32 each."""

    def put(self, key: Hashable, vectors: Vectors) -> None:
        """Keep vectors; those that are larger than all that may be kept are not."""
        # A slice of a batch's states would keep all of them.
        own = np.array(vectors, dtype=np.float32)
        own.flags.writeable = False
        self.keep(key, own, own.nbytes + _OVERHEAD)
