"""The most popular items, for requests of which nothing is known."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class PopularItems:
    """Items by training events; they are put in order once.

    Args:
        counts: (V,) int64 training events of each item.
    """

    def __init__(self, counts: Array) -> None:
        self._order = np.lexsort((np.arange(len(counts)), -counts))
        self._shares = (counts / max(int(counts.sum()), 1)).astype(np.float32)

    def best(
        self, k: int, allow: Array | None = None, deny: Array | None = None, there: Array | None = None
    ) -> tuple[Scores, Array]:
        """The k most popular items, of equal ones the first; items added since have no count.

        Args:
            k: answers.
            allow: (A,) item indices that may be answered at all.
            deny: (D,) that never are.
            there: (n,) items that may be answered now; None is all of the log.

        Returns:
            (k,) float32 shares of the training events, -inf past the last answer, and int64 items, -1 there.
        """
        best = self._order
        if allow is not None or deny is not None or there is not None:
            candidate = np.ones(len(best), dtype=np.bool_)
            for only in (allow, there):
                if only is not None:
                    inside = np.zeros(len(best), dtype=np.bool_)
                    inside[only[only < len(best)]] = True
                    candidate &= inside
            if deny is not None:
                candidate[deny[deny < len(best)]] = False
            best = best[candidate[best]]
        best = best[:k]
        scores = np.full(k, -np.inf, dtype=np.float32)
        ids = np.full(k, -1, dtype=np.int64)
        scores[: len(best)] = self._shares[best]
        ids[: len(best)] = best
        return scores, ids
