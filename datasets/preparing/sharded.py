"""Prepare a log as a store of shards: what is decided between the pieces of work, and the files of all."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.collecting import reading
from recsys.datasets.prepared.item_features import TAGS, tags_digest
from recsys.datasets.prepared.shards import COUNTS_FILE, write_manifest
from recsys.datasets.prepared.vocabulary import Vocabulary
from recsys.datasets.prepared.writer import describe_file, this_version, write_array, write_parquet
from recsys.datasets.preparing.catalog import Catalog, build_catalog
from recsys.datasets.preparing.description import Lengths, Times, add_events
from recsys.datasets.preparing.dividing import lost_part
from recsys.datasets.preparing.events import united
from recsys.datasets.preparing.inputs import (
    Sources,
    describe_source,
    label_of,
    nothing_left,
    open_sources,
)
from recsys.datasets.preparing.item_features import fitting_ids
from recsys.datasets.preparing.options import PrepareOptions
from recsys.datasets.preparing.shard_cuts import shard_cuts
from recsys.datasets.preparing.shard_events import (
    SparseCounts,
    core_round,
    items_of_part,
    scatter_part,
    sort_shard,
)
from recsys.datasets.preparing.shard_job import Each, ShardJob, converted, save_array
from recsys.datasets.preparing.shard_writing import (
    ColdEvents,
    SharedFiles,
    WrittenShard,
    count_cold,
    divide_shard,
    write_shard,
)
from recsys.datasets.reading.item_features import ItemFeatures
from recsys.datasets.reading.item_metadata import distinct_items, read_item_file
from recsys.datasets.reading.validate import CheckedLog
from recsys.datasets.schema import ITEM
from recsys.datasets.splitting.parts import TEST, VALID, tie_share
from recsys.datasets.splitting.temporal import Temporal
from recsys.datasets.times.time_zones import zone_column
from recsys.errors import ArgumentError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["PART_ROWS", "build_shards", "refuse_shards"]

PART_ROWS = 1 << 20
"""Rows of a part of the log; a part takes some hundred bytes a row of memory."""

MOST_SHARDS = 99_999

_BY_USER = ("leave-one-out", "last-n", "ratio", "column", "files", "temporal")
_SAME_EVERYWHERE = ("valid_time", "test_time")


def refuse_shards(n_shards: Any, options: PrepareOptions) -> None:
    """Refuse a number of shards that is none, and what looks at all users at once or is kept by one dataset.

    Raises:
        ArgumentError: any of these.
    """
    if isinstance(n_shards, bool) or not isinstance(n_shards, int) or not 1 <= n_shards <= MOST_SHARDS:
        raise ArgumentError(f"shards={n_shards!r}: give a whole number from 1 to {MOST_SHARDS:,}")
    if options.events.asked:
        raise ArgumentError(
            f"{options.events.asked[0]}= is kept by one dataset alone: leave shards= out, or the columns"
        )
    if options.items.denoise is not None:
        raise ArgumentError("denoise= is done for one dataset alone: leave shards= or denoise= out")
    if options.split in _BY_USER or getattr(options.split_by, "fold_by", None) == "events":
        return
    if options.split == "k-fold":
        raise ArgumentError(
            "fold_by='users' draws from all users at once, which shards do not: pass fold_by='events', or"
            " leave shards= out"
        )
    raise ArgumentError(
        f"split={options.split!r} may look at all users at once, which shards do not: choose"
        f" {', '.join(_BY_USER)}, or leave shards= out"
    )


def build_shards(
    folder: Path,
    sources: Sources,
    options: PrepareOptions,
    features: ItemFeatures | None,
    name: str,
    notify: Callable[[str], None] | None,
    *,
    n_shards: int,
    each: Each,
) -> None:
    """Write a store of shards into an empty folder.

    Args:
        folder: to write; a folder in it takes what the pieces of work hand on.
        sources: what to read.
        options: of the preparation.
        features: of the item file, or None where none were asked for.
        name: of the dataset.
        notify: receives lines worth showing.
        n_shards: how many.
        each: does the pieces of work.

    Raises:
        ArgumentError, DataError: as `prepare`; and fewer users than shards, or a shard without one.
    """
    checked, part_column = open_sources(sources, options, notify)
    source = sources.log
    metadata = distinct_items(read_item_file(sources.items)) if sources.items is not None else None
    job = ShardJob(
        folder=folder.resolve(),
        n_shards=n_shards,
        rows=checked.rows,
        part_rows=PART_ROWS,
        checked=checked,
        label=checked.raw.label,
        per_second=checked.per_second,
        zone_column=zone_column(options.time_zone),
        part_column=part_column,
        time_zone=options.time_zone,
        least_user=options.filters.least("user"),
        least_item=options.filters.least("item"),
        split=options.split,
        split_by=options.split_by,
    )
    job.scratch.mkdir()
    if checked.raw.text or not isinstance(source.log, Path):
        job = _copied(job, checked)
    item_ids = _all_items(job, each)
    list(each(scatter_part, [(job, part) for part in job.parts]))
    job.log_copy.unlink(missing_ok=True)
    sorted_ = list(each(sort_shard, [(job, shard) for shard in job.shards]))
    n_users = sum(users for users, _, _ in sorted_)
    if n_users < n_shards:
        raise ArgumentError(f"shards={n_shards}: the log has {n_users} users; pass fewer shards")
    _refuse_empty([users for users, _, _ in sorted_])
    turn, removed = _filtered(job, each, _summed((one[2] for one in sorted_), item_ids.len()), n_users)
    if removed["events"] == job.rows:
        raise nothing_left(source.file, job.least_user, job.least_item)
    split = _split(job, each, turn, item_ids, keep_cold=options.items.keep_cold)

    own = item_ids.filter(split.stays)
    every = own
    if options.items.keep_cold and metadata is not None:
        every = united(own, fitting_ids(metadata[ITEM], own, label_of(sources.items)))
    numbers = np.full(item_ids.len(), -1, dtype=np.int32)
    numbers[split.stays] = every.search_sorted(own).to_numpy()
    save_array(job.array("numbers"), numbers)
    training = np.zeros(every.len(), dtype=np.int64)
    training[numbers[split.stays]] = split.training[split.stays]
    catalog = build_catalog(
        every,
        training,
        metadata=metadata,
        features=features,
        label=label_of(sources.items),
        keep_cold=options.items.keep_cold,
        notify=notify,
    )
    about = describe_source(name, sources, checked, options)
    shared = _write_catalog(job.folder, catalog, about)
    written = list(each(write_shard, [(job, shard, shared) for shard in job.shards]))
    write_array(training, folder / COUNTS_FILE)
    facts = {
        "removed": {"before": {"users": n_users, "items": item_ids.len(), "events": job.rows}, **removed},
        "split": {"name": options.split, **split.facts},
        "duplicate_events": sum(one[1] for one in sorted_),
    }
    _describe(job, shared, written, facts)
    # The second are of workers that were killed.
    for folder_left in (job.scratch, *job.folder.glob(".shard-*")):
        shutil.rmtree(folder_left)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Split:
    """What the split of all shards came to.

    Attributes:
        stays: (V,) bool, items that some event still has.
        training: (V,) int64 training events.
        facts: for the manifest.
    """

    stays: NDArray[np.bool_]
    training: NDArray[np.int64]
    facts: dict[str, Any]


def _copied(job: ShardJob, checked: CheckedLog) -> ShardJob:
    """Write the converted log down, so that its parts can be read without parsing text again and again."""
    frame = converted(checked, job.zone_column, job.part_column)
    with reading(job.label, checked.raw.path, checked.raw.separator):
        frame.sink_parquet(job.log_copy, compression="lz4", row_group_size=min(job.part_rows, 1 << 18))
    return replace(job, checked=None)


def _all_items(job: ShardJob, each: Each) -> "pl.Series":
    """The distinct item ids of the log in rising order; also written down for the pieces of work."""
    import polars as pl

    found: pl.Series | None = None
    for ids in each(items_of_part, [(job, part) for part in job.parts]):
        found = ids if found is None else pl.concat([found, ids]).unique()
    assert found is not None  # a log has rows, or it was refused
    item_ids = found.sort().rechunk()
    write_parquet(item_ids.to_frame(), job.scratch / "items.parquet")
    return item_ids


def _filtered(
    job: ShardJob, each: Each, counts: NDArray[np.int64], n_users: int
) -> tuple[int, dict[str, int]]:
    """Run the k-core filter over all shards: the number of its last round, and what it dropped."""
    users, n_items, dropped, rounds = n_users, int(np.count_nonzero(counts)), 0, 0
    if max(job.least_user, job.least_item) <= 1:
        return 0, {"rounds": 0, "events": 0, "users": 0, "items": 0}
    while True:
        save_array(job.array(f"enough-{rounds + 1}"), counts >= job.least_item)
        found = list(each(core_round, [(job, shard, rounds + 1) for shard in job.shards]))
        events = sum(one[0] for one in found)
        if not events:
            break
        dropped, rounds, users = dropped + events, rounds + 1, sum(one[1] for one in found)
        counts = _summed((one[2] for one in found), len(counts))
    left = {"users": n_users - users, "items": n_items - int(np.count_nonzero(counts))}
    return rounds, {"rounds": rounds, "events": dropped, **left}


def _split(job: ShardJob, each: Each, turn: int, item_ids: "pl.Series", *, keep_cold: bool) -> _Split:
    """Split all shards, and find the items that stay.

    Raises:
        ArgumentError, DataError: nothing trains, a stated part is lost, or a shard is left without a user.
    """
    cuts = shard_cuts(job, each, turn, job.split_by) if isinstance(job.split_by, Temporal) else None
    divided = list(each(divide_shard, [(job, shard, turn, cuts) for shard in job.shards]))
    training = _summed(((one.items, one.training) for one in divided), item_ids.len())
    present = np.zeros(item_ids.len(), dtype=bool)
    for one in divided:
        present[one.items] = True
    untrained = divided[0].untrained
    if untrained is not None and not training.any():
        raise untrained
    users = [one.users for one in divided]
    facts = {
        name: value if name in _SAME_EVERYWHERE else sum(one.facts[name] for one in divided)
        for name, value in divided[0].facts.items()
    }
    stays = present
    if divided[0].drop_cold:
        trained = training > 0
        save_array(job.array("trained"), trained)
        cold = list(each(count_cold, [(job, shard) for shard in job.shards]))
        n_cold = sum(lost for one in cold for _, lost in one.events.values())
        if keep_cold:
            facts["cold_events_kept"] = n_cold
        else:
            if job.part_column is not None:
                _refuse_lost(cold, item_ids)
            stays = trained
            facts["cold_events"] = n_cold
            facts["cold_items"] = int(np.count_nonzero(present)) - int(np.count_nonzero(trained))
            facts["cold_users"] = sum(one.users_lost for one in cold)
            users = [before - one.users_lost for before, one in zip(users, cold, strict=True)]
    _refuse_empty(users)
    return _Split(stays=stays, training=training, facts=facts)


def _refuse_lost(cold: Sequence[ColdEvents], item_ids: "pl.Series") -> None:
    """Refuse a stated part of which nothing is left."""
    for part in (VALID, TEST):
        counted = [one.events.get(part, (0, 0)) for one in cold]
        events, lost = sum(one[0] for one in counted), sum(one[1] for one in counted)
        if events and events == lost:
            item = next(one.example[part] for one in cold if part in one.example)
            raise lost_part(part, events, item_ids[item])


def _refuse_empty(users: Sequence[int]) -> None:
    """Refuse a store in which a shard has nobody, as happens where users are few."""
    if 0 in users:
        raise ArgumentError(
            f"shards={len(users)}: shard {users.index(0)} would hold no user; pass fewer shards"
        )


def _write_catalog(folder: Path, catalog: Catalog, about: dict[str, Any]) -> SharedFiles:
    """Write the files that all shards share."""
    write_parquet(catalog.table.rechunk(), folder / "items.parquet")
    ids = {"items": Vocabulary(catalog.table[ITEM]).digest()}
    names = ["items.parquet"]
    for name, array in catalog.arrays.items():
        write_array(array, folder / f"{name}.npy")
        names.append(f"{name}.npy")
    if catalog.tags is not None:
        write_parquet(catalog.tags.rechunk(), folder / TAGS)
        names.append(TAGS)
        ids["tags"] = tags_digest(catalog.tags)
    return SharedFiles(
        n_items=catalog.table.height,
        files={name: describe_file(folder / name) for name in names},
        ids=ids,
        about=about,
        counts=catalog.facts,
    )


def _describe(
    job: ShardJob, shared: SharedFiles, written: Sequence[WrittenShard], facts: dict[str, Any]
) -> None:
    """Write the manifest."""
    times = [one.times for one in written if one.times is not None]
    tied = [one.bounds[1] for one in written if one.bounds[1] is not None]
    split = {name: sum(one.split[name] for one in written) for name in written[0].split}
    tested = sum(one.bounds[0] for one in written)
    write_manifest(
        job.folder,
        {
            "recsys_version": this_version(),
            **shared.about,
            "counts": {
                **add_events([one.counts for one in written], shared.n_items),
                "duplicate_events": facts["duplicate_events"],
                **shared.counts,
            },
            "removed": facts["removed"],
            "split": facts["split"] | split,
            "tie_share": tie_share(sum(tied) if tied else None, tested),
            "lengths": Lengths.added([one.lengths for one in written]).described(),
            "time": Times.added(times).described(job.time_zone) if times else None,
            "ids": shared.ids,
            "files": shared.files | {COUNTS_FILE: describe_file(job.folder / COUNTS_FILE)},
            "shards": [asdict(one.entry) for one in written],
        },
    )


def _summed(parts: Iterable[SparseCounts], n_items: int) -> NDArray[np.int64]:
    total = np.zeros(n_items, dtype=np.int64)
    for items, counts in parts:
        total[items] += counts
    return total
