"""From the sorted events of a shard to its prepared dataset: split, drop, number items, write."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import appearing_folder
from recsys.datasets.prepared.files import META_FILE, fingerprint, read_meta, sha256_of
from recsys.datasets.prepared.link import link_file
from recsys.datasets.prepared.shards import ShardEntry, shard_name
from recsys.datasets.prepared.user_hash import USER_HASH
from recsys.datasets.prepared.vocabulary import Vocabulary
from recsys.datasets.prepared.writer import describe_file, write_array, write_meta, write_parquet
from recsys.datasets.preparing.description import Lengths, Times, describe_events
from recsys.datasets.preparing.event_arrays import event_arrays
from recsys.datasets.preparing.events import Events, keep_users
from recsys.datasets.preparing.shard_events import kept_events
from recsys.datasets.preparing.shard_job import ShardJob, load_state, save_state
from recsys.datasets.splitting.parts import (
    LEFT_OUT,
    TRAIN,
    Division,
    SortedLog,
    SplitBounds,
    bounds_of,
    describe,
)
from recsys.datasets.splitting.registry import divide
from recsys.datasets.splitting.temporal import TemporalCuts, divided_at
from recsys.errors import RecsysError

__all__ = [
    "ColdEvents",
    "Divided",
    "SharedFiles",
    "WrittenShard",
    "count_cold",
    "divide_shard",
    "write_shard",
]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Divided:
    """What the split of a shard came to.

    Attributes:
        users: that are split.
        items: items that occur in the events that are split, in rising order.
        training: how many of each one's events train.
        facts: for meta.json.
        drop_cold: whether events with an item that never trains are dropped.
        untrained: what to raise if no event of any shard trains.
    """

    users: int
    items: NDArray[np.int32]
    training: NDArray[np.int64]
    facts: dict[str, Any]
    drop_cold: bool
    untrained: RecsysError | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ColdEvents:
    """Events of a shard whose item never trains.

    Attributes:
        events: by part of the split, all and the cold ones.
        users_lost: users that have no others.
        example: by part, the item of a cold event.
    """

    events: dict[int, tuple[int, int]]
    users_lost: int
    example: dict[int, int]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SharedFiles:
    """What the manifest's folder gives to every shard.

    Attributes:
        n_items: V.
        files: size and hash by name.
        ids: digests of the vocabularies by name.
        about: for the meta.json of every shard.
        counts: likewise, what is known of the items.
    """

    n_items: int
    files: dict[str, dict[str, Any]]
    ids: dict[str, str]
    about: dict[str, Any]
    counts: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WrittenShard:
    """What is known of a shard that was written.

    Attributes:
        entry: for the manifest.
        counts: of `describe_events`.
        split: of `describe`.
        bounds: tested users, and those with a tie.
        lengths, times: of its events; times are None for a log of order alone.
    """

    entry: ShardEntry
    counts: dict[str, Any]
    split: dict[str, int]
    bounds: tuple[int, int | None]
    lengths: Lengths
    times: Times | None


def divide_shard(job: ShardJob, shard: int, turn: int, cuts: TemporalCuts | None) -> Divided:
    """Split the events that the filter keeps and hand on those that no split leaves out.

    Args:
        job: of the store.
        shard: its number.
        turn: last round of the filter, 0 for none.
        cuts: of a temporal split of all shards.
    """
    events, keep = kept_events(job, shard, turn)
    if keep is not None:
        events = keep_users(events, keep)
    division = _division(job, events, cuts)
    events = keep_users(replace(events, parts=division.parts), division.parts != LEFT_OUT)
    assert events.parts is not None
    save_state(job.state(shard, "divided"), events)
    items, where = np.unique(events.items, return_inverse=True)
    return Divided(
        users=events.user_ids.len(),
        items=items.astype(np.int32),
        training=np.bincount(where[events.parts == TRAIN], minlength=len(items)),
        facts=dict(division.facts),
        drop_cold=division.drop_cold,
        untrained=division.untrained,
    )


def count_cold(job: ShardJob, shard: int) -> ColdEvents:
    """Look for events with an item that ``trained.npy`` (V,) bool of the scratch folder does not name."""
    events = load_state(job, job.state(shard, "divided"))
    assert events.parts is not None
    cold = ~np.load(job.array("trained"), allow_pickle=False)[events.items]
    totals, lost = Counter(events.parts.tolist()), Counter(events.parts[cold].tolist())
    return ColdEvents(
        events={part: (totals[part], lost[part]) for part in totals},
        users_lost=events.user_ids.len() - len(np.unique(events.users[~cold])),
        example={part: int(events.items[cold & (events.parts == part)][0]) for part in lost},
    )


def write_shard(job: ShardJob, shard: int, shared: SharedFiles) -> WrittenShard:
    """Write the prepared dataset of a shard.

    Items get their numbers in the catalog by ``numbers.npy`` (V,) int32 of the scratch folder; events of
    items without one are dropped.

    Args:
        job: of the store.
        shard: its number.
        shared: files of the store's folder, which become files of the shard as well.
    """
    events = load_state(job, job.state(shard, "divided"))
    numbers = np.load(job.array("numbers"), allow_pickle=False)
    events = keep_users(events, numbers[events.items] >= 0)
    events = replace(events, items=numbers[events.items])
    assert events.parts is not None
    offsets = events.offsets()
    bounds = bounds_of(events.parts, offsets, events.keys if events.per_second is not None else None)
    arrays = event_arrays(events, bounds, job.time_zone)
    counts = describe_events(events, offsets, shared.n_items)
    lengths = Lengths.of(offsets)
    times = None
    if "timestamps" in arrays:
        times = Times.of(arrays["timestamps"], arrays.get("utc_offsets"))
    split = describe(bounds, offsets)
    name = shard_name(shard, job.n_shards)
    meta = {
        **shared.about,
        "shard": {"number": shard, "of": job.n_shards, "user_hash": USER_HASH},
        "counts": {**counts, **shared.counts},
        "split": {"name": job.split, **split},
        "tie_share": bounds.tie_share,
        "lengths": lengths.described(),
        "time": None if times is None else times.described(job.time_zone),
    }
    with appearing_folder(job.folder / name) as folder:
        _write_files(folder, job.folder, arrays, events, meta, shared)
    return WrittenShard(
        entry=_entry(job.folder / name, offsets, bounds, split),
        counts=counts,
        split=split,
        bounds=(bounds.tested, bounds.tied),
        lengths=lengths,
        times=times,
    )


def _division(job: ShardJob, events: Events, cuts: TemporalCuts | None) -> Division:
    timestamps = events.timestamps
    if cuts is not None:
        assert timestamps is not None
        return divided_at(timestamps, cuts)
    log = SortedLog(offsets=events.offsets(), timestamps=timestamps, stated=events.parts)
    return divide(log, job.split, job.split_by)


def _write_files(
    folder: Path,
    store: Path,
    arrays: dict[str, NDArray[Any]],
    events: Events,
    meta: dict[str, Any],
    shared: SharedFiles,
) -> None:
    for name, array in arrays.items():
        write_array(array, folder / f"{name}.npy")
    write_parquet(events.user_ids.rechunk().to_frame(), folder / "users.parquet")
    own = [f"{name}.npy" for name in arrays] + ["users.parquet"]
    files = {name: describe_file(folder / name) for name in own}
    for name in shared.files:
        link_file(store / name, folder / name)
    ids = {"users": Vocabulary(events.user_ids).digest(), **shared.ids}
    write_meta(folder, meta, ids, files | shared.files)


def _entry(
    folder: Path, offsets: NDArray[np.int64], bounds: SplitBounds, split: dict[str, int]
) -> ShardEntry:
    return ShardEntry(
        name=folder.name,
        users=len(offsets) - 1,
        events=int(offsets[-1]),
        fingerprint=fingerprint(read_meta(folder)),
        meta_sha256=sha256_of(folder / META_FILE),
        most_trained=int((bounds.valid_start - offsets[:-1]).max()),
        untrained_users=int(np.count_nonzero(bounds.valid_start == offsets[:-1])),
        train_events=split["train_events"],
        valid_users=split["valid_users"],
        test_users=split["test_users"],
        tested_after_history=bounds.tested,
    )
