"""Counts for ranks by way of the matrix tiles, where the processor has them."""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.ranking import cpu_rank_prefilter
from recsys.kernels.ranking.cpu_rank_plan import plan_tasks
from recsys.kernels.ranking.cpu_rank_prefilter_bound import WIDEST
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector.tiles import BLOCK, tiles_available

LEAST_ROWS = 48
"""Rows from which on a prefilter is faster: the items are rounded once for all of them."""


def prefilter_pays(rows: int, width: int) -> bool:
    """Whether the processor has matrix tiles and is the faster for them."""
    return rows >= LEAST_ROWS and width <= WIDEST and tiles_available()


def count_with_prefilter(
    hidden: NDArray[np.float32],
    padded: int,
    items: NDArray[np.float32],
    width: int,
    targets: NDArray[np.int64],
    excluded: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], bool]:
    """Count the scores above and level with the targets'.

    Args:
        hidden: (B padded,) rows, each with zeros up to `padded` elements.
        padded: a multiple of LANES.
        items: (V d,).
        width: d.
        targets: (B,).
        excluded: (E,) ids; row r excludes excluded[offsets[r] : offsets[r + 1]].
        offsets: (B + 1,), or empty, as `excluded` then is.

    Returns:
        (4, B) int64, above, level, above and excluded, level and excluded, with the target among the level;
        and whether all scores were finite.
    """
    rows, count_items = len(targets), len(items) // width
    depth = width + -width % BLOCK
    groups = -(-rows // BLOCK)
    # To whole cache lines: a tile's row then is one.
    memory = np.empty(groups * BLOCK * depth + BLOCK, dtype=np.uint16)
    skipped = -memory.ctypes.data % 64 // 2
    rounded = memory[skipped : skipped + groups * BLOCK * depth]
    norms, thresholds = np.empty(2 * rows, dtype=np.float32), np.empty(rows, dtype=np.float32)
    batch = cpu_rank_prefilter.RoundedRows(
        count=rows,
        hidden=hidden,
        padded=padded,
        depth=depth,
        rounded=rounded,
        norms=norms,
        thresholds=thresholds,
        items=items,
        width=width,
        targets=targets,
    )
    launch(cpu_rank_prefilter.round_rows_worker, threads_for(groups, 20 * rows * width), batch)
    threads, stretch = plan_tasks(rows, count_items, rows * count_items * depth // 100)
    found = np.zeros((threads, 4, rows), dtype=np.int64)
    faults = np.zeros(threads, dtype=np.int64)
    launch(
        cpu_rank_prefilter.prefilter_worker,
        threads,
        batch,
        stretch,
        excluded,
        offsets,
        found.reshape(-1),
        faults,
    )
    return found.sum(axis=0) if threads > 1 else found[0], 1 not in faults.tolist()
