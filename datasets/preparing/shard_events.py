"""From the parts of a log to the sorted events of each shard: pieces of work on a part or on a shard."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.folders import appearing_folder
from recsys.datasets.prepared.user_hash import shards_of
from recsys.datasets.prepared.writer import write_array, write_parquet
from recsys.datasets.preparing.events import (
    KEY,
    Events,
    coded_words,
    count_duplicates,
    numbered,
    sort_events,
)
from recsys.datasets.preparing.shard_job import ShardJob, load_state, read_rows, save_array, save_state
from recsys.datasets.reading.logs import PART, ZONE
from recsys.datasets.schema import ITEM, USER
from recsys.datasets.splitting.parts import Parts
from recsys.datasets.splitting.stated import parts_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ["SparseCounts", "core_round", "items_of_part", "kept_events", "scatter_part", "sort_shard"]

SparseCounts = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Items that occur, in rising order, and how often each does."""


def items_of_part(job: ShardJob, part: int) -> "pl.Series":
    """The distinct item ids of a part of the log."""
    return read_rows(job, part, ITEM)[ITEM].unique()


def scatter_part(job: ShardJob, part: int) -> None:
    """Write a part of the log sorted by shard, the events of each in the log's order.

    Users are numbered by shard, then id. The numbers of items are those of ``items.parquet`` in the scratch
    folder.
    """
    import polars as pl

    frame = read_rows(job, part)
    user_ids = frame[USER].unique().sort()
    shards = shards_of(user_ids, job.n_shards)
    by_shard = np.argsort(shards, kind="stable")
    user_ids, shards = user_ids.gather(by_shard), shards[by_shard]
    item_ids = pl.read_parquet(job.scratch / "items.parquet", glob=False)[ITEM]
    further = [name for name in (ZONE, PART) if name in frame.columns]
    with reading(job.label):
        coded = (
            frame.lazy()
            .join(numbered(user_ids, "user"), on=USER, how="left", maintain_order="left")
            .join(numbered(item_ids, "item"), on=ITEM, how="left", maintain_order="left")
            .select("user", "item", KEY, *further)
            .collect(engine="streaming")
        )
    del frame
    users = coded["user"].to_numpy()
    order = np.argsort(shards[users], kind="stable")
    bounds = np.arange(job.n_shards + 1)
    with appearing_folder(job.part(part)) as folder:
        write_array(users[order], folder / "users.npy")
        write_array(coded["item"].to_numpy()[order], folder / "items.npy")
        write_array(coded[KEY].to_numpy()[order], folder / "keys.npy")
        write_parquet(user_ids.rechunk().to_frame(), folder / "ids.parquet")
        write_array(np.searchsorted(shards, bounds), folder / "id_bounds.npy")
        write_array(np.searchsorted(shards[users][order], bounds), folder / "bounds.npy")
        if ZONE in further:
            where = f"{job.label}: column {job.zone_column!r}"
            codes, names = coded_words(coded[ZONE], where, "a zone")
            write_array(codes[order], folder / "zones.npy")
            write_parquet(pl.DataFrame({"name": list(names)}), folder / "zone_names.parquet")
        if PART in further:
            write_array(_stated_parts(job, coded[PART])[order], folder / "parts.npy")


def sort_shard(job: ShardJob, shard: int) -> tuple[int, int, SparseCounts]:
    """Gather the events of a shard from all parts and sort them, ties by place in the log.

    Returns:
        Its users, its repeated events, and how often items occur.
    """
    events = sort_events(_gathered(job, shard))
    save_state(job.state(shard, "sorted"), events)
    return events.user_ids.len(), count_duplicates(events), _occurrences(events.items)


def core_round(job: ShardJob, shard: int, turn: int) -> tuple[int, int, SparseCounts]:
    """One round of the k-core filter on a shard, as `recsys.datasets.preparing.filters.k_core` does them.

    Args:
        job: with ``enough-TURN.npy`` (V,) bool in its scratch folder: items that have enough events.
        shard: its number.
        turn: of the round, from 1.

    Returns:
        Events that the round drops, users that are left, and how often items are left.
    """
    events = load_state(job, job.state(shard, "sorted"))
    before = _kept(job, shard, turn - 1)
    live = np.arange(len(events.users)) if before is None else np.flatnonzero(before)
    users, items = events.users[live], events.items[live]
    counts = np.bincount(users, minlength=events.user_ids.len())
    enough = np.load(job.array(f"enough-{turn}"), allow_pickle=False)
    stays = (counts[users] >= job.least_user) & enough[items]
    keep = np.zeros(len(events.users), dtype=bool)
    keep[live[stays]] = True
    save_array(job.array(f"keep-{shard:05d}-{turn}"), keep)
    return len(live) - int(stays.sum()), len(np.unique(users[stays])), _occurrences(items[stays])


def kept_events(job: ShardJob, shard: int, turn: int) -> tuple[Events, NDArray[np.bool_] | None]:
    """The sorted events of a shard, and which of them the filter's last round keeps; None for all."""
    return load_state(job, job.state(shard, "sorted")), _kept(job, shard, turn)


def _kept(job: ShardJob, shard: int, turn: int) -> NDArray[np.bool_] | None:
    if turn == 0:
        return None
    kept: NDArray[np.bool_] = np.load(job.array(f"keep-{shard:05d}-{turn}"), allow_pickle=False)
    return kept


def _gathered(job: ShardJob, shard: int) -> Events:
    """The events of a shard in the log's order."""
    import polars as pl

    ids = [_ids_of(job, part, shard) for part in job.parts]
    user_ids = pl.concat(ids).unique().sort()
    names = sorted({name for part in job.parts for name in _zone_names(job, part)})
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for part, own in zip(job.parts, ids, strict=True):
        folder = job.part(part)
        bounds, id_bounds = (np.load(folder / f"{name}.npy") for name in ("bounds", "id_bounds"))
        for name in ("users", "items", "keys", "zones", "parts"):
            path = folder / f"{name}.npy"
            if not path.exists():
                continue
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            piece = np.array(array[bounds[shard] : bounds[shard + 1]])
            if name == "users":
                places = user_ids.search_sorted(own).to_numpy().astype(np.int32)
                piece = places[piece - id_bounds[shard]] if len(piece) else piece
            elif name == "zones":
                piece = np.searchsorted(names, _zone_names(job, part)).astype(np.int32)[piece]
            columns.setdefault(name, []).append(piece)
    whole = {name: np.concatenate(pieces) for name, pieces in columns.items()}
    return replace(
        Events(
            users=whole["users"],
            items=whole["items"],
            keys=whole["keys"],
            per_second=job.per_second,
            user_ids=user_ids,
            item_ids=pl.Series([], dtype=pl.Int64),
            zone_names=tuple(names),
        ),
        zones=whole.get("zones"),
        parts=whole.get("parts"),
    )


def _ids_of(job: ShardJob, part: int, shard: int) -> "pl.Series":
    import polars as pl

    folder = job.part(part)
    bounds = np.load(folder / "id_bounds.npy")
    first, last = int(bounds[shard]), int(bounds[shard + 1])
    return pl.scan_parquet(folder / "ids.parquet", glob=False).slice(first, last - first).collect()[USER]


def _zone_names(job: ShardJob, part: int) -> list[str]:
    import polars as pl

    path = job.part(part) / "zone_names.parquet"
    return pl.read_parquet(path, glob=False)["name"].to_list() if path.exists() else []


def _stated_parts(job: ShardJob, words: "pl.Series") -> Parts:
    where = f"{job.label}: column {job.part_column!r}"
    codes, names = coded_words(words, where, "a part (train, valid or test)")
    return parts_of(list(names), codes, where)


def _occurrences(items: NDArray[np.int32]) -> SparseCounts:
    ids, counts = np.unique(items, return_counts=True)
    return ids.astype(np.int32), counts
