"""What every piece of work on a store of shards knows, and the files that the pieces hand on.

A log is read in parts, ranges of its rows. Each part is written sorted by shard, and each shard is then read
out of all parts. Pieces of work hand on large things as files of a scratch folder, which therefore has to lie
on a disk that all of them see; a piece that is done twice writes the same files.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.folders import appearing_folder
from recsys.datasets.prepared.writer import write_array, write_parquet
from recsys.datasets.preparing.events import KEY, Events
from recsys.datasets.reading.logs import convert
from recsys.datasets.reading.validate import CheckedLog
from recsys.datasets.schema import POSITION, TIMESTAMP, USER

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Each", "ShardJob", "in_this_process", "load_state", "read_rows", "save_array", "save_state"]

Result = TypeVar("Result")


class Each(Protocol):
    """Does a piece of work for each tuple of arguments and gives the results in the tuples' order.

    Functions are those of a module and arguments can be sent to other processes. What a piece raises has to
    come out as it was raised.
    """

    def __call__(
        self, function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterable[Result]:
        """Results of ``function(*one)`` for each of the arguments."""


def in_this_process(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]]
) -> Iterator[Result]:
    """One piece after the other."""
    for one in arguments:
        yield function(*one)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ShardJob:
    """One preparation of a store of shards.

    Attributes:
        folder: of the store while it is written.
        n_shards: of the store.
        rows: of the log.
        part_rows: rows of a part.
        checked: the log, or None where its converted copy lies in the scratch folder.
        label: the log as messages name it.
        per_second: ticks of the events' keys in a second; None for a log of order alone.
        zone_column: of each event's time zone, if a column has it.
        part_column: that states the split, if one does.
        time_zone: as it was asked for.
        least_user, least_item: events that a user and an item must have.
        split: name of the split.
        split_by: its configuration.
    """

    folder: Path
    n_shards: int
    rows: int
    part_rows: int
    checked: CheckedLog | None
    label: str
    per_second: int | None
    zone_column: str | None
    part_column: str | None
    time_zone: str | None
    least_user: int
    least_item: int
    split: str
    split_by: Any

    @property
    def scratch(self) -> Path:
        """Folder of the files that pieces of work hand on."""
        return self.folder / "scratch"

    @property
    def log_copy(self) -> Path:
        """The converted log, where it was copied."""
        return self.scratch / "log.parquet"

    @property
    def parts(self) -> range:
        """Numbers of the log's parts."""
        return range(-(-self.rows // self.part_rows))

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(self.n_shards)

    def part(self, number: int) -> Path:
        """Folder of a part of the log, sorted by shard."""
        return self.scratch / f"part-{number:05d}"

    def state(self, shard: int, what: str) -> Path:
        """Folder of a shard's events at a stage of the work."""
        return self.scratch / f"shard-{shard:05d}-{what}"

    def array(self, what: str) -> Path:
        """File of an array."""
        return self.scratch / f"{what}.npy"


def read_rows(job: ShardJob, part: int, *columns: str) -> "pl.DataFrame":
    """The rows of one part of the log, converted, in the log's order.

    Args:
        job: of the log.
        part: number of the part.
        columns: to read; none given reads all.

    Raises:
        DataError: the log cannot be read any more.
    """
    import polars as pl

    start = part * job.part_rows
    if job.checked is None:
        frame = pl.scan_parquet(job.log_copy, glob=False).slice(start, job.part_rows)
    else:
        raw = replace(job.checked.raw, frame=job.checked.raw.frame.slice(start, job.part_rows))
        frame = converted(replace(job.checked, raw=raw), job.zone_column, job.part_column)
        if job.checked.key is None:
            frame = frame.with_columns(pl.col(KEY) + start)
    with reading(job.label):
        return (frame.select(columns) if columns else frame).collect(engine="streaming")


def converted(checked: CheckedLog, zone: str | None, part: str | None) -> "pl.LazyFrame":
    """A checked log as user, item and key, with columns of zones and of parts where there are such."""
    frame = convert(checked, key=KEY, zone=zone, part=part)
    return frame.drop(TIMESTAMP if checked.has_times else POSITION)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    write_array(array, temporary)
    temporary.replace(path)


def save_state(folder: Path, events: Events) -> None:
    """Hand on the events of a shard; items have their numbers in the whole log."""
    with appearing_folder(folder) as fresh:
        for name in ("users", "items", "keys", "zones", "parts"):
            array = getattr(events, name)
            if array is not None:
                write_array(array, fresh / f"{name}.npy")
        write_parquet(events.user_ids.rechunk().to_frame(), fresh / "ids.parquet")
        write_parquet(_words(events.zone_names), fresh / "zone_names.parquet")


def load_state(job: ShardJob, folder: Path) -> Events:
    """The events that `save_state` handed on; their item ids are not loaded."""
    import polars as pl

    def array(name: str) -> Any:
        path = folder / f"{name}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None

    return Events(
        users=array("users"),
        items=array("items"),
        keys=array("keys"),
        per_second=job.per_second,
        user_ids=pl.read_parquet(folder / "ids.parquet", glob=False)[USER],
        item_ids=pl.Series([], dtype=pl.Int64),
        zones=array("zones"),
        zone_names=tuple(pl.read_parquet(folder / "zone_names.parquet", glob=False)["name"].to_list()),
        parts=array("parts"),
    )


def _words(names: Sequence[str]) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame({"name": pl.Series(list(names), dtype=pl.String)})
