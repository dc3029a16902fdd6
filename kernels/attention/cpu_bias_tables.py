"""What the host does for the bias on the CPU: lay the tables out for the loops, add up their gradients.

Legend: H heads, T time buckets, R relative positions, P tasks.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.attention.bias import relative_position
from recsys.kernels.attention.cpu_bias import Tables
from recsys.kernels.attention.cpu_bias_vectors import TABLE_ENTRIES
from recsys.kernels.shared.vector import PANEL


def lay_out(
    time_table: Tensor | None,
    timestamps: Tensor | None,
    position_table: Tensor | None,
    *,
    longest: int,
    causal: bool,
) -> Tables | None:
    """Pad the time table and spread the position table over all distances of a batch; None without tables.

    Args:
        time_table: (H, T) float32 or None.
        timestamps: (N,) int64, with `time_table`.
        position_table: (H, R) float32 or None.
        longest: length of the longest sequence.
        causal: whether queries see no later key.
    """
    if time_table is None and position_table is None:
        return None
    entries, positions = np.zeros(0, np.float32), np.zeros(0, np.float32)
    times, entry_of = np.zeros(0, np.int64), np.zeros(0, np.int64)
    last, zero, reached, n_entries = -1, 0, 0, 0
    if time_table is not None and timestamps is not None:
        n = time_table.shape[1]
        last, n_entries = n - 1, n
        entries = torch.nn.functional.pad(time_table.detach(), (0, TABLE_ENTRIES - n)).view(-1).numpy()
        times = timestamps.contiguous().numpy()
    if position_table is not None:
        # Idle lanes of a block lie up to PANEL beyond the last query; so do keys that no query sees.
        zero = PANEL if causal else longest
        far = max(0, longest - 1)
        distance = torch.arange(-zero, longest + PANEL).clamp(0 if causal else -far, far)
        index = relative_position(distance, torch.zeros_like(distance), position_table.shape[1], causal)
        positions = position_table.detach()[:, index].contiguous().view(-1).numpy()
        reached = int(index[0])
        entry_of = (index - reached).numpy()
        n_entries += int(entry_of[-1]) + 1
    return Tables(entries, last, times, positions, len(entry_of), zero, entry_of, reached, n_entries)


def sum_partials(
    partials: NDArray[np.float32],
    tasks: NDArray[np.int64],
    tables: Tables | None,
    time_table: Tensor | None,
    position_table: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Add up the tasks' gradients of the tables, in the order of the tasks.

    Args:
        partials: (P, n_entries).
        tasks: (P, 6) from `cut_batch`.
        tables: from `lay_out`.
        time_table: (H, T) or None.
        position_table: (H, R) or None.

    Returns:
        (H, T) and (H, R) float32; empty for a table that is None.
    """
    times, positions = (
        torch.zeros(0 if table is None else table.shape) for table in (time_table, position_table)
    )
    if tables is None:
        return times, positions
    buckets = tables.last + 1
    reached = slice(tables.reached, tables.reached + tables.n_entries - buckets)
    for head in np.unique(tasks[:, 1]).tolist():
        total = partials[tasks[:, 1] == head].sum(axis=0, dtype=np.float64)
        if time_table is not None:
            times[head] = torch.from_numpy(total[:buckets])
        if position_table is not None:
            positions[head, reached] = torch.from_numpy(total[buckets:])
    return times, positions
