"""What an encoder adds to the scores of the items of a user's window, laid out for ranking and answering.

Legend: b rows, P pairs of a row and an item of its window.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.jagged import flat_ranges

__all__ = ["WindowBias"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class WindowBias:
    """What is added to the scores of items of each row's window.

    Attributes:
        ids: (P,) int64, distinct within a row.
        offsets: (b+1,) int64.
        bias: (P,) float32.
    """

    ids: Ints
    offsets: Ints
    bias: NDArray[np.float32]

    def rows(self) -> Ints:
        """(P,) row of each pair."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def repeated(self, place: Ints) -> "WindowBias":
        """Those of rows (n,), any of which may come several times."""
        starts, ends = self.offsets[place], self.offsets[place + 1]
        pairs = flat_ranges(starts, ends)
        offsets = np.concatenate(([0], np.cumsum(ends - starts)))
        return WindowBias(self.ids[pairs], offsets, self.bias[pairs])

    def laid_out(self, scores: NDArray[Any]) -> tuple[NDArray[Any], Ints]:
        """Scores (P,) and ids as (b, longest) arrays, a row's at its left, -inf and -1 behind them."""
        rows = self.rows()
        places = rows, np.arange(len(rows)) - self.offsets[rows]
        shape = len(self.offsets) - 1, int(np.diff(self.offsets).max(initial=0))
        laid, ids = np.full(shape, -np.inf, scores.dtype), np.full(shape, -1, np.int64)
        laid[places], ids[places] = scores, self.ids
        return laid, ids
