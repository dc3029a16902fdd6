"""The log that every side reads: dense ids and positions in one NumPy file."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recsys.benchmarks.peers.suiting import COVERED
from recsys.errors import DataError

HELD_OUT = 2
"""Events of each user that are not trained on."""
MIN_EVENTS = HELD_OUT + 1
"""One more is the least that a history can be."""


@dataclass(frozen=True)
class LogFacts:
    """What the written log holds.

    Attributes:
        name: folder and file name of the source.
        order_by: the source's column that the order came from.
        dropped_users: users with fewer than 3 events, left out.
        training_pairs: (position -> target) pairs among the events that are not held out.
        history_95: events that 95% of the users have at most among those that are not held out.
    """

    name: str
    order_by: str
    users: int
    items: int
    events: int
    dropped_users: int
    training_pairs: int
    history_95: int


def write_log(source: Path, target: Path) -> LogFacts:
    """Write ``source`` as (N, 3) int64 user, item, position, so that all sides see one order.

    Args:
        source: Parquet with user_id, item_id and one of timestamp, pos, position.
        target: .npy file to write.

    Raises:
        DataError: the file cannot be read, a column is missing, or no user has 3 events.
    """
    try:
        frame = pl.read_parquet(source, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{source}: cannot read the log as Parquet ({str(error).splitlines()[0]}); give a .parquet file"
        ) from None
    order_by = next((c for c in ("timestamp", "pos", "position") if c in frame.columns), None)
    missing = [c for c in ("user_id", "item_id") if c not in frame.columns]
    if missing or order_by is None:
        wanted = [*missing, *([] if order_by else ["timestamp or pos"])]
        raise DataError(f"{source}: no column {', '.join(wanted)}; it has {', '.join(frame.columns)}")
    users_before = frame["user_id"].n_unique()
    frame = (
        frame.sort(["user_id", order_by], maintain_order=True)
        .filter(pl.len().over("user_id") >= MIN_EVENTS)
        .select(
            pl.col("user_id").rank("dense").cast(pl.Int64),
            pl.col("item_id").rank("dense").cast(pl.Int64),
            pl.int_range(pl.len()).over("user_id").cast(pl.Int64).alias("position"),
        )
    )
    if frame.is_empty():
        raise DataError(f"{source}: no user has {MIN_EVENTS} events; give a longer log")
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, np.ascontiguousarray(frame.to_numpy()), allow_pickle=False)
    partial.replace(target)
    lengths = frame.group_by("user_id").len()["len"] - HELD_OUT
    users = len(lengths)
    return LogFacts(
        name="/".join(source.resolve().parts[-2:]),
        order_by=order_by,
        users=users,
        items=frame["item_id"].n_unique(),
        events=len(frame),
        dropped_users=users_before - users,
        training_pairs=len(frame) - MIN_EVENTS * users,
        history_95=math.ceil(np.quantile(lengths.to_numpy(), COVERED)),
    )
