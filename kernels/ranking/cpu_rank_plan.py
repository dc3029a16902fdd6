"""How ranking on the CPU is cut into tasks: tiles of items, and stretches of tiles for some rows."""

from recsys.kernels.shared.threads import threads_for

BLOCK_V = 256
"""Items per tile, a multiple of 64: its scores take 32 KiB with 32 rows."""

WORDS = BLOCK_V // 64

PART_ROWS = 1024
"""Most rows per task of work."""

STRETCH = 32
"""Most tiles of items per task: with `PART_ROWS` rows their bits take 1 MiB."""


def plan_tasks(rows: int, items: int, steps: int) -> tuple[int, int]:
    """Choose the threads and the tiles of items per task, for `steps` elementary steps of work."""
    tiles, parts = -(-items // BLOCK_V), -(-rows // PART_ROWS)
    threads = threads_for(tiles * parts, steps)
    # Four tasks per thread, so that a late one delays nobody; one thread takes the longest.
    stretch = STRETCH if threads == 1 else -(-tiles * parts // (4 * threads))
    return threads, min(STRETCH, stretch, tiles)
