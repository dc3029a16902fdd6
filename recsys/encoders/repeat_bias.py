"""A learned bias of the items that a user's window already holds, by how far back they lie.

Whether people come back to the same items is a habit of the log: of films nearly never, of places and songs
most of the time, and then rather to what they had a moment ago. States and item vectors say it badly, for
an item is near to itself. RepeatNet (Ren et al. 2019, arXiv:1812.02646) decides between repeating and
exploring with a network of its own; here the habit is a table of a few numbers, added to the score, trained
with the encoder, and known to whatever ranks.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from recsys.jagged import flat_ranges
from recsys.kernels.repeats import RepeatLayout, repeat_correction

Ints = NDArray[np.int64]

UNIT = 8.0
"""Score of a weight of one: Adam's steps are the size of the learning rate, and a bias has some way to go."""


class RepeatBias(nn.Module):
    """K biases: of items last seen 1, 2 to 3, 4 to 7, ... events ago; the last for all beyond.

    Args:
        n_buckets: K.
    """

    reads_clock = False

    def __init__(self, n_buckets: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_buckets))

    @property
    def bias(self) -> Tensor:
        """(K,) biases in units of the scores."""
        return UNIT * self.weight

    def correction(
        self, hidden: Tensor, keys: Tensor, log_totals: Tensor, layout: RepeatLayout, **options: Any
    ) -> Tensor:
        """What is added to the full-softmax loss; arguments as of `repeat_correction`."""
        return repeat_correction(hidden, keys, log_totals, self.bias.to(hidden.dtype), layout, **options)

    def of_distances(self, distances: Ints) -> NDArray[np.float32]:
        """Biases of items last seen so many events ago, 1 for the latest event."""
        table: NDArray[np.float32] = self.bias.detach().float().cpu().numpy()
        found = table[np.minimum(np.log2(np.maximum(distances, 1)).astype(np.int64), len(table) - 1)]
        return found

    def of_windows(
        self,
        items: NDArray[np.integer],
        starts: Ints,
        ends: Ints,
        window: int,
        local_times: Ints | None = None,
        asked: Ints | None = None,
    ) -> tuple[Ints, Ints, NDArray[np.float32]]:
        """Ids (P,), offsets (R+1,) and biases (P,) of what windows hold; arguments as of `window_items`.

        Times, which `OccurrenceBias` reads, change nothing here.
        """
        ids, offsets, distances = window_items(items, starts, ends, window)
        return ids, offsets, self.of_distances(distances)


def window_items(
    items: NDArray[np.integer], starts: Ints, ends: Ints, window: int
) -> tuple[Ints, Ints, Ints]:
    """The distinct items of the last events of histories, with the distance of each one's last occurrence.

    Args:
        items: (N,) items of all events.
        starts: (R,) positions of the histories' first events.
        ends: (R,) positions past their last events.
        window: most events of a history that are looked at, the last ones.

    Returns:
        ids (P,), offsets (R+1,) and distances (P,), 1 for the last event.
    """
    first = np.maximum(starts, ends - window)
    owner = np.repeat(np.arange(len(starts)), ends - first)
    position = flat_ranges(first, ends)
    found = items[position].astype(np.int64)
    distance = ends[owner] - position
    order = np.lexsort((distance, found, owner))
    fresh = np.ones(len(order), dtype=np.bool_)
    fresh[1:] = (owner[order][1:] != owner[order][:-1]) | (found[order][1:] != found[order][:-1])
    kept = order[fresh]
    offsets = np.zeros(len(starts) + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner[kept], minlength=len(starts)), out=offsets[1:])
    return found[kept], offsets, distance[kept]
