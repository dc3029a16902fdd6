"""Exact ranks and top-k on the CPU: float32 scores, made and consumed a tile at a time."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.ranking import cpu_rank, cpu_top_k
from recsys.kernels.ranking.cpu_pack import PackedRows, pack_worker
from recsys.kernels.ranking.cpu_rank_plan import plan_tasks
from recsys.kernels.ranking.cpu_rank_prefilter_launch import count_with_prefilter, prefilter_pays
from recsys.kernels.ranking.cpu_top_k_exclude import excluded_items
from recsys.kernels.ranking.cpu_top_k_single_thread import select_single_thread
from recsys.kernels.ranking.reference import NOT_FINITE, Jagged, rank_from_counts
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES, PANEL

_LEAST_SLACK = 22
"""Fewest entries of a row's list beyond k: shorter lists would be cut too often."""

_NOBODY = np.empty(0, dtype=np.int64)

MOST_ROWS = 4096
"""Rows gone through together: bounds the memory, and a larger group reads the item table no less often."""


def rank_of_target(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, exclude: Jagged | None, *, ties: str
) -> tuple[Tensor, Tensor]:
    """Count the scores above and level with the target's; arguments as in the public function."""
    count = len(hidden)
    counts = np.zeros((4, count), dtype=np.int64)
    items, width = _flat(item_weight), item_weight.shape[1]
    prefiltered = prefilter_pays(count, width)
    ids = offsets = _NOBODY
    if exclude is not None and len(exclude[0]) > 0:
        ids, offsets = exclude[0].contiguous().numpy(), exclude[1].contiguous().numpy()
    for first in range(0, count, MOST_ROWS):
        batch = slice(first, first + MOST_ROWS)
        goals = targets[batch].contiguous().numpy()
        rows = hidden if count <= MOST_ROWS else hidden[batch]
        bounds = offsets[first : first + len(goals) + 1]
        if prefiltered:
            flat, padded = _padded(rows, width)
            found, finite = count_with_prefilter(flat, padded, items, width, goals, ids, bounds)
        else:
            found, finite = _count_without_prefilter(rows, items, width, goals, ids, bounds)
        if not finite:
            raise ArgumentError(NOT_FINITE)
        counts[:, batch] = found
    above, level, above_excluded, level_excluded = torch.from_numpy(counts)
    level = level - 1  # the target is level with itself
    kept = rank_from_counts(above, level, ties)
    return kept, rank_from_counts(above - above_excluded, level - level_excluded, ties)


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
    count = hidden.shape[0]
    # torch's own allocations, views and copies cost several times numpy's where its code has left the caches.
    scores, ids = np.empty((count, k), dtype=np.float32), np.empty((count, k), dtype=np.int64)
    score_bits, names = scores.reshape(-1).view(np.int32), ids.reshape(-1)
    catalog, excluded_for_all = _open_items(item_weight.shape[0], candidates, deny)
    weight = item_weight if catalog is None else item_weight[torch.from_numpy(catalog)]
    items, width = _flat(weight), weight.shape[1]
    taken = min(k, weight.shape[0])
    if taken == 0:
        scores.fill(-np.inf)
        ids.fill(-1)
        return torch.from_numpy(scores), torch.from_numpy(ids)
    places = None
    if catalog is not None and exclude is not None:
        places = np.full(len(item_weight), -1)
        places[catalog] = np.arange(len(catalog))
    capacity = min(weight.shape[0], taken + max(taken, _LEAST_SLACK))
    for first in range(0, count, MOST_ROWS):
        batch = slice(first, first + MOST_ROWS)
        size = min(MOST_ROWS, count - first)
        asked = hidden if count <= MOST_ROWS else hidden[batch]
        excluded = excluded_items(exclude, first, size, item_weight.shape[0], places)
        lanes = _lanes(size)
        if _threads(-(-size // lanes), lanes, len(items) // width, width) == 1:
            out = score_bits[first * k :], names[first * k :]
            if select_single_thread(
                _flat(asked), lanes, items, width, excluded_for_all, excluded, taken, k, capacity, *out
            ):
                raise ArgumentError(NOT_FINITE)
            continue
        rows = _Rows(asked, items, width, _NOBODY)
        threads, part, stretch = rows.plan()
        keys = np.empty(threads * rows.count * capacity, dtype=np.int64)
        sizes = np.zeros(threads * rows.count, dtype=np.int64)
        faults = np.zeros(threads, dtype=np.int64)
        launch(
            cpu_top_k.select_worker,
            threads,
            rows.packed,
            part,
            stretch,
            excluded_for_all,
            excluded,
            taken,
            capacity,
            keys,
            sizes,
            faults,
        )
        if 1 in faults.tolist():
            raise ArgumentError(NOT_FINITE)
        launch(
            cpu_top_k.merge_worker,
            threads_for(rows.count, rows.count * taken * 100),
            threads,
            rows.count,
            taken,
            k,
            capacity,
            keys,
            sizes,
            score_bits[first * k :],
            names[first * k :],
        )
    if catalog is not None:
        np.copyto(names, catalog[names], where=names >= 0)
    return torch.from_numpy(scores), torch.from_numpy(ids)


def _count_without_prefilter(
    hidden: Tensor,
    items: NDArray[np.float32],
    width: int,
    targets: NDArray[np.int64],
    excluded: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], bool]:
    """Count by scoring everything in float32; as `count_with_prefilter`."""
    rows = _Rows(hidden, items, width, targets)
    threads, stretch = plan_tasks(rows.count, rows.items, rows.steps)
    found = np.zeros((threads, 4, rows.count), dtype=np.int64)
    faults = np.zeros(threads, dtype=np.int64)
    launch(
        cpu_rank.rank_worker,
        threads,
        rows.packed,
        stretch,
        rows.thresholds,
        targets,
        excluded,
        offsets,
        found.reshape(-1),
        faults,
    )
    return found.sum(axis=0) if threads > 1 else found[0], 1 not in faults.tolist()


def _open_items(
    items: int, candidates: Tensor | None, deny: Tensor | None
) -> tuple[NDArray[np.int64] | None, NDArray[np.bool_]]:
    """Say which items all rows may have: as the ids of a catalog to copy, or as flags of the others.

    Flags cost nothing but where an excluded item's score passes a threshold; a copy pays where few are left.
    """
    if candidates is None and deny is None:
        return None, np.empty(0, dtype=np.bool_)
    excluded_for_all = np.full(items, candidates is not None)
    if candidates is not None:
        excluded_for_all[candidates.numpy()] = False
    if deny is not None:
        excluded_for_all[deny.numpy()] = True
    if 2 * np.count_nonzero(excluded_for_all) > items:
        return np.flatnonzero(~excluded_for_all), np.empty(0, dtype=np.bool_)
    return None, excluded_for_all


class _Rows:
    """A batch of rows, packed for the tiles, with the scores of its targets."""

    def __init__(
        self, hidden: Tensor, items: NDArray[np.float32], width: int, targets: NDArray[np.int64]
    ) -> None:
        self.count = len(hidden)
        self.items = len(items) // width
        self.blocks = -(-self.items // cpu_top_k.BLOCK_V)
        self.width = width
        self.lanes = _lanes(self.count)
        self.groups = -(-self.count // self.lanes)
        self.steps = _steps(self.groups, self.lanes, self.items, width)
        flat, padded = _padded(hidden, width)
        columns = np.empty(self.groups * self.lanes * padded, dtype=np.float32)
        self.packed = PackedRows(self.count, self.lanes, flat, padded, columns, items, width)
        self.thresholds = np.empty(len(targets), dtype=np.float32)
        launch(
            pack_worker,
            threads_for(self.groups, self.count * width * 20),
            self.packed,
            targets,
            self.thresholds,
        )

    def plan(self) -> tuple[int, int, int]:
        """Choose the threads, and the groups of rows and blocks of items per task.

        With rows enough for all threads a task is the whole catalog for some of them, so that each row has
        one threshold; otherwise the threads share the catalog.
        """
        threads = _threads(self.groups, self.lanes, self.items, self.width)
        if threads > 1 and self.groups >= 4 * threads:
            return threads, self.groups // (4 * threads), self.blocks
        parts = min(self.groups, -(-4 * threads // self.blocks))
        return threads, -(-self.groups // parts), 1


def _padded(hidden: Tensor, width: int) -> tuple[NDArray[np.float32], int]:
    """Lay rows end to end, each with zeros up to a whole number of vectors; and say how long each is."""
    flat, padded = _flat(hidden), width + -width % LANES
    if padded == width:
        return flat, width
    capacity = np.zeros((len(hidden), padded), dtype=np.float32)
    capacity[:, :width] = flat.reshape(len(hidden), width)
    return capacity.reshape(-1), padded


def _lanes(rows: int) -> int:
    return LANES if rows <= LANES else PANEL


def _threads(groups: int, lanes: int, items: int, width: int) -> int:
    """How many threads the scores of a batch are worth."""
    blocks = -(-items // cpu_top_k.BLOCK_V)
    return threads_for(blocks * groups, _steps(groups, lanes, items, width))


def _steps(groups: int, lanes: int, items: int, width: int) -> int:
    return groups * lanes * items * width // 15


def _flat(x: Tensor) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = x.float().contiguous().numpy()
    return flat.reshape(-1)
