"""Exact ranks and top-k on the CPU: float32 scores, made and consumed a tile at a time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking import selection, sweeps
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged, rank_from_counts
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector import LANES

MOST_LANES = 64

MOST_ROWS = 4096
"""Rows gone through together: bounds the memory, and a larger group reads the item table no less often."""


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Count the scores above and level with the target's; arguments as in the public function."""
    counts = np.zeros((4, len(hidden)), dtype=np.int64)
    items, width = _flat(item_weight), item_weight.shape[1]
    for first in range(0, len(hidden), MOST_ROWS):
        batch = slice(first, first + MOST_ROWS)
        goals = targets[batch].contiguous().numpy()
        rows = _Rows(hidden[batch], items, width, goals)
        row, ids = _excluded(exclude, first, len(goals))
        other = ids != goals[row]
        barred, starts = rows.keys(row[other], ids[other])
        threads, part, stretch = rows.plan()
        found = np.zeros((threads, 4, len(goals)), dtype=np.int64)
        faults = np.zeros(threads, dtype=np.int64)
        launch(
            sweeps.rank_worker,
            threads,
            rows.lanes,
            rows.count,
            part,
            stretch,
            rows.columns,
            rows.padded,
            items,
            width,
            rows.bars,
            barred,
            starts,
            found.reshape(-1),
            faults,
        )
        if faults.any():
            raise ArgumentError(NOT_FINITE)
        counts[:, batch] = found.sum(axis=0)
    above, level, above_barred, level_barred = torch.from_numpy(counts)
    level = level - 1  # the target is level with itself
    kept = rank_from_counts(above, level, ties)
    return kept, rank_from_counts(above - above_barred, level - level_barred, ties)


def top_k(
    hidden: Tensor,
    item_weight: Tensor,
    k: int,
    exclude: Jagged | None,
    *,
    candidates: Tensor | None,
    deny: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Select by a running threshold; arguments as in the public function."""
    catalog = None if candidates is None else np.unique(candidates.numpy())
    if deny is not None:
        # Denied items leave the catalog: it is copied without them, as it is for candidates.
        catalog = np.setdiff1d(np.arange(len(item_weight)) if catalog is None else catalog, deny.numpy())
    weight = item_weight if catalog is None else item_weight[torch.from_numpy(catalog)]
    items, width = _flat(weight), weight.shape[1]
    scores = torch.full((len(hidden), k), float("-inf"))
    ids = torch.full((len(hidden), k), -1, dtype=torch.int64)
    taken = min(k, len(weight))
    if taken == 0:
        return scores, ids
    nobody = np.empty(0, dtype=np.int64)
    for first in range(0, len(hidden), MOST_ROWS):
        batch = slice(first, first + MOST_ROWS)
        rows = _Rows(hidden[batch], items, width, nobody)
        row, shut = _excluded(exclude, first, rows.count)
        if catalog is not None:
            place = np.minimum(np.searchsorted(catalog, shut), len(catalog) - 1)
            inside = catalog[place] == shut
            row, shut = row[inside], place[inside]
        barred, starts = rows.keys(row, shut)
        threads, part, stretch = rows.plan()
        best = np.empty(threads * rows.count * taken, dtype=np.float32)
        places = np.empty(threads * rows.count * taken, dtype=np.int64)
        sizes = np.zeros(threads * rows.count, dtype=np.int64)
        faults = np.zeros(threads, dtype=np.int64)
        launch(
            selection.select_worker,
            threads,
            rows.lanes,
            rows.count,
            part,
            stretch,
            rows.columns,
            rows.padded,
            items,
            width,
            barred,
            starts,
            taken,
            best,
            places,
            sizes,
            faults,
        )
        if faults.any():
            raise ArgumentError(NOT_FINITE)
        merged = torch.empty(rows.count, taken)
        names = torch.empty(rows.count, taken, dtype=torch.int64)
        launch(
            selection.merge_worker,
            threads_for(rows.count, rows.count * taken * 100),
            threads,
            rows.count,
            taken,
            best,
            places,
            sizes,
            merged.view(-1).numpy(),
            names.view(-1).numpy(),
        )
        if catalog is not None:
            names = torch.where(names < 0, names, torch.from_numpy(catalog)[names.clamp_min(0)])
        scores[batch, :taken] = merged
        ids[batch, :taken] = names
    return scores, ids


class _Rows:
    """A batch of rows, packed for the tiles, with the scores of its targets."""

    def __init__(
        self, hidden: Tensor, items: NDArray[np.float32], width: int, targets: NDArray[np.int64]
    ) -> None:
        self.count = len(hidden)
        self.items = len(items) // width
        self.blocks = -(-self.items // sweeps.BLOCK)
        self.width = width
        self.lanes = MOST_LANES
        while self.lanes > LANES and self.count <= self.lanes // 2:
            self.lanes //= 2
        self.groups = -(-self.count // self.lanes)
        self.padded = width + -width % LANES
        rows = torch.nn.functional.pad(hidden.float(), (0, self.padded - width))
        self.columns = np.empty(self.groups * self.lanes * self.padded, dtype=np.float32)
        self.bars = np.empty(len(targets), dtype=np.float32)
        launch(
            sweeps.pack_worker,
            threads_for(self.groups, self.count * width * 20),
            self.lanes,
            self.count,
            _flat(rows),
            self.padded,
            items,
            width,
            targets,
            self.columns,
            self.bars,
        )

    def plan(self) -> tuple[int, int, int]:
        """Choose the threads, and the groups of rows and blocks of items per piece.

        With rows enough for all threads a piece is one group and the whole catalog, so that each row has one
        threshold; otherwise the threads share the catalog.
        """
        steps = self.groups * self.lanes * self.items * self.width // 15
        threads = threads_for(self.blocks * self.groups, steps)
        if self.groups >= 4 * threads:
            return threads, 1, self.blocks
        parts = min(self.groups, -(-4 * threads // self.blocks))
        return threads, -(-self.groups // parts), 1

    def keys(self, row: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Order excluded (row, item) pairs as the tiles meet them, without repeats; see `rank_worker`."""
        block = ids // sweeps.BLOCK
        keys = np.sort((block * (self.count - 1) + row) * sweeps.BLOCK + ids)
        if len(keys):
            keys = keys[np.append(True, keys[1:] != keys[:-1])]
        return keys, np.searchsorted(keys, np.arange(self.blocks + 1) * self.count * sweeps.BLOCK)


def _excluded(exclude: Jagged | None, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the excluded pairs (row from `first`, item) of `count` rows."""
    if exclude is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    bounds = exclude[1][first : first + count + 1].numpy()
    ids = exclude[0][int(bounds[0]) : int(bounds[-1])].contiguous().numpy()
    return np.repeat(np.arange(count), np.diff(bounds)), ids


def _flat(x: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = x.float().contiguous().view(-1).numpy()
    return flat
