"""Counts for ranks by way of the matrix tiles, where the processor has them."""

import numpy as np
from numpy.typing import NDArray

from recsys.kernels.ranking import screening
from recsys.kernels.ranking.narrow_rows import WIDEST
from recsys.kernels.ranking.reference import Jagged
from recsys.kernels.threads import launch, threads_for
from recsys.kernels.vector.tiles import BLOCK, tiles_available

LEAST_ROWS = 48
"""Rows from which on screening is faster: the items are rounded once for all of them."""

_NONE = np.empty(0, dtype=np.int64)


def screening_pays(rows: int, width: int) -> bool:
    """Whether the processor can screen and is the faster for it."""
    return rows >= LEAST_ROWS and width <= WIDEST and tiles_available()


def count_screened(
    hidden: NDArray[np.float32],
    padded: int,
    items: NDArray[np.float32],
    width: int,
    targets: NDArray[np.int64],
    exclude: Jagged | None,
    first: int,
) -> tuple[NDArray[np.int64], bool]:
    """Count the scores above and level with the targets'.

    Args:
        hidden: (B padded,) rows, each with zeros up to `padded` elements.
        padded: a multiple of LANES.
        items: (V d,).
        width: d.
        targets: (B,).
        exclude: (ids, offsets) of all rows, or None.
        first: the place of these rows among all.

    Returns:
        (4, B) int64, above, level, above and excluded, level and excluded, with the target among the level;
        and whether all scores were finite.
    """
    rows, count_items = len(targets), len(items) // width
    depth = width + -width % BLOCK
    groups = -(-rows // BLOCK)
    # To whole cache lines: a tile's row then is one.
    room = np.empty(groups * BLOCK * depth + BLOCK, dtype=np.uint16)
    skipped = -room.ctypes.data % 64 // 2
    narrow = room[skipped : skipped + groups * BLOCK * depth]
    norms, bars = np.empty(2 * rows, dtype=np.float32), np.empty(rows, dtype=np.float32)
    launch(
        screening.narrow_rows_worker,
        threads_for(groups, 20 * rows * width),
        rows,
        hidden,
        padded,
        depth,
        items,
        width,
        targets,
        narrow,
        norms,
        bars,
    )
    ids = offsets = _NONE
    if exclude is not None and len(exclude[0]) > 0:
        ids, offsets = exclude[0].contiguous().numpy(), exclude[1][first : first + rows + 1].contiguous().numpy()
    blocks, parts = -(-count_items // screening.ITEMS), -(-groups // screening.PART)
    threads = threads_for(blocks * parts, rows * count_items * depth // 100)
    # Four pieces per thread, so that a late one delays nobody; one thread takes the longest.
    stretch = screening.STRETCH if threads == 1 else min(screening.STRETCH, -(-blocks * parts // (4 * threads)))
    found = np.zeros((threads, 4, rows), dtype=np.int64)
    faults = np.zeros(threads, dtype=np.int64)
    launch(
        screening.screen_worker,
        threads,
        rows,
        min(stretch, blocks),
        hidden,
        padded,
        depth,
        narrow,
        norms,
        bars,
        items,
        width,
        targets,
        ids,
        offsets,
        found.reshape(-1),
        faults,
    )
    return found.sum(axis=0) if threads > 1 else found[0], 1 not in faults.tolist()
