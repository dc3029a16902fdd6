"""Turn a log into a prepared dataset: read, check, encode, filter, split, write; all or nothing."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import replacing_folder
from recsys.datasets.prepared.files import read_meta
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.writer import write_dataset
from recsys.datasets.preparing.description import describe_events, describe_lengths, describe_time
from recsys.datasets.preparing.events import Events, count_duplicates, keep_events, load_events, sort_events
from recsys.datasets.preparing.filters import k_core
from recsys.datasets.preparing.options import SPLITS, PrepareOptions, file_sha256, least
from recsys.datasets.reading.item_metadata import item_rows, read_item_metadata
from recsys.datasets.reading.logs import open_log
from recsys.datasets.sources.finding import Source, find_source
from recsys.datasets.splitting import split as splitting
from recsys.datasets.times.time_zones import check_time_zone, offsets_of_column, utc_offsets, zone_column
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl


def prepare(
    log: "str | Path | pl.DataFrame | pl.LazyFrame",
    out: str | Path,
    *,
    name: str | None = None,
    split: str = "leave-one-out",
    min_events: int | None = None,
    min_user_events: int | None = None,
    min_item_events: int | None = None,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    valid_time: int | None = None,
    test_time: int | None = None,
    items: str | Path | None = None,
    time_zone: str | None = None,
    format: str | None = None,
    user_column: str | None = None,
    item_column: str | None = None,
    timestamp_column: str | None = None,
    time_unit: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    overwrite: bool = False,
    notify: Callable[[str], None] | None = None,
) -> SequenceStore:
    """Prepare a log into a folder.

    Memory stays at some tens of bytes an event besides the distinct ids. If ``out`` already holds the same
    log prepared with the same options, it is opened and nothing is done.

    Args:
        log: path, known name (``ml-100k``), or polars frame.
        out: folder to write; it appears whole or not at all.
        name: of the dataset in reports; None for the known name, the folder or the file of the log.
        split: "leave-one-out" (each user's last event tests, the one before validates) or "temporal" (two
            moments cut all users alike).
        min_events: events that every user and every item must have, dropping and counting again until all
            do (k-core); None keeps all.
        min_user_events: the same for users alone; overrides ``min_events``.
        min_item_events: the same for items alone; overrides ``min_events``.
        valid_fraction: share of events that validate under the temporal split.
        test_fraction: share of events that test under the temporal split.
        valid_time: unix seconds of the first cut instead; an event at or after it belongs to the later part.
        test_time: unix seconds of the second cut.
        items: file with item titles and other columns, see `read_item_metadata`; known logs bring theirs.
        time_zone: of the users, IANA name or ``+HH:MM``, or ``column:NAME`` where a column of the log has
            each event's, as one of these or as whole minutes east of UTC; None if unknown.
        format: of the log, see `recsys.datasets.reading.logs.open_log` for this and the next six.
        user_column: name of the user column.
        item_column: name of the item column.
        timestamp_column: name of the time column.
        time_unit: "s", "ms", "us", "ns" or "order".
        separator: between fields of a text log.
        header: whether the first line names columns.
        overwrite: whether to replace a prepared dataset that was made otherwise.
        notify: receives lines worth showing, such as where a known log was fetched from.

    Returns:
        The opened dataset.

    Raises:
        ArgumentError: an option is unknown or out of range.
        DataError: the log is bad, nothing is left of it, ``out`` holds something else, or the disk is full.
    """
    if split not in SPLITS:
        raise ArgumentError(f"split={split!r} is not known: choose {' or '.join(SPLITS)}")
    if time_zone is not None:
        check_time_zone(time_zone)
    folder = Path(out).expanduser()
    source = find_source(log, notify)
    items_path = Path(items).expanduser() if items is not None else source.items
    by_time = split == "temporal"
    options = PrepareOptions(
        split=split,
        min_user_events=least("min_user_events", min_user_events, min_events),
        min_item_events=least("min_item_events", min_item_events, min_events),
        valid_fraction=valid_fraction if by_time and valid_time is None else None,
        test_fraction=test_fraction if by_time and test_time is None else None,
        valid_time=valid_time if by_time else None,
        test_time=test_time if by_time else None,
        time_zone=time_zone,
        items_sha256=file_sha256(items_path),
        format=format,
        user_column=user_column,
        item_column=item_column,
        timestamp_column=timestamp_column,
        time_unit=time_unit,
        separator=separator,
        header=header,
    )
    if folder.exists() and not _may_replace(folder, source, options, overwrite):
        return SequenceStore.open(folder)
    with replacing_folder(folder, overwrite=overwrite) as temporary:
        _build(temporary, source, options, items_path, name or source.name)
    return SequenceStore.open(folder)


def _may_replace(folder: Path, source: Source, options: PrepareOptions, overwrite: bool) -> bool:
    """Whether to write although the folder exists; False if it is already what was asked for."""
    if not folder.is_dir():
        raise DataError(f"{folder}: exists and is no folder; choose another one")
    if not any(folder.iterdir()):
        return True
    try:
        meta = read_meta(folder)
    except DataError:
        # Never delete what is not ours, whatever was asked.
        raise DataError(f"{folder}: exists and is not a prepared dataset; choose another folder") from None
    same = meta.get("source", {}).get("sha256") == source.sha256 and meta.get("options") == asdict(options)
    if same:
        try:
            SequenceStore.open(folder)
            return False
        except DataError:
            if not overwrite:
                raise
    if not overwrite:
        raise DataError(
            f"{folder}: holds a dataset made from another log or with other options;"
            " choose another folder or pass --overwrite"
        )
    return True


def _build(folder: Path, source: Source, options: PrepareOptions, items_path: Path | None, name: str) -> None:
    column = zone_column(options.time_zone)
    checked = open_log(source.log, **options.reading(), zone_column=column)
    if options.split == "temporal" and not checked.has_times:
        raise ArgumentError(
            f"{source.file}: split='temporal' needs times; this log has the order of events alone"
        )
    if options.time_zone is not None and not checked.has_times:
        raise ArgumentError(f"{source.file}: time_zone needs times; this log has the order of events alone")
    metadata = read_item_metadata(items_path) if items_path is not None else None
    events = load_events(checked, folder, zone_column=column)
    (folder / "columns.parquet").unlink(missing_ok=True)
    before = {"users": events.user_ids.len(), "items": events.item_ids.len(), "events": len(events.users)}
    events = sort_events(events)
    duplicates = count_duplicates(events)
    core = k_core(
        events.users,
        events.items,
        min_user_events=options.min_user_events,
        min_item_events=options.min_item_events,
    )
    events = keep_events(events, core.keep)
    if not len(events.users):
        raise DataError(
            f"{source.file}: no event is left after keeping users with {options.min_user_events}"
            f" and items with {options.min_item_events} events; pass a smaller --min-events"
        )
    events, bounds, split_facts = _split(events, options)
    offsets = events.offsets()
    timestamps = events.timestamps
    arrays: dict[str, NDArray[Any]] = {"items": events.items, "offsets": offsets}
    if timestamps is not None:
        arrays["timestamps"] = timestamps
        if options.time_zone is not None:
            arrays["utc_offsets"] = _utc_offsets(timestamps, events, options.time_zone)
    arrays |= {"valid_start": bounds.valid_start, "test_start": bounds.test_start}
    training = splitting.training_events(bounds, offsets)
    counts = np.bincount(events.items[training], minlength=events.item_ids.len())
    table, titled = item_rows(events.item_ids, counts, metadata)
    meta = {
        "name": name,
        "source": {
            "name": source.name,
            "file": source.file,
            "sha256": source.sha256,
            "bytes": source.size,
            "rows": checked.rows,
            "origin": source.origin,
            "columns": {"user": checked.raw.user, "item": checked.raw.item, "time": checked.raw.time},
        },
        "options": asdict(options),
        "counts": {
            **describe_events(events, offsets),
            "duplicate_events": duplicates,
            "items_with_metadata": titled,
        },
        "removed": {
            "before": before,
            "rounds": core.rounds,
            "events": core.removed_events,
            "users": core.removed_users,
            "items": core.removed_items,
        },
        "split": {"name": options.split, **split_facts, **splitting.describe(bounds, offsets)},
        "tie_share": bounds.tie_share,
        "lengths": describe_lengths(offsets),
        "time": describe_time(timestamps, options.time_zone, arrays.get("utc_offsets")),
    }
    write_dataset(folder, arrays=arrays, users=events.user_ids, items=table, meta=meta)


def _utc_offsets(timestamps: NDArray[np.int64], events: Events, zone: str) -> NDArray[np.int32]:
    column = zone_column(zone)
    if column is None:
        return utc_offsets(timestamps, zone)
    assert events.zones is not None
    return offsets_of_column(timestamps, events.zones, list(events.zone_names), column)


def _split(events: Events, options: PrepareOptions) -> tuple[Events, splitting.SplitBounds, dict[str, Any]]:
    if options.split == "leave-one-out":
        keys = events.keys if events.per_second is not None else None
        return events, splitting.leave_one_out(events.offsets(), keys), {}
    timestamps = events.timestamps
    assert timestamps is not None
    cuts = splitting.temporal_cuts(
        timestamps,
        valid_fraction=options.valid_fraction or 0.1,
        test_fraction=options.test_fraction or 0.1,
        valid_time=options.valid_time,
        test_time=options.test_time,
    )
    cold = splitting.cold_events(timestamps, events.items, events.item_ids.len(), cuts)
    kept = keep_events(events, ~cold)
    assert kept.timestamps is not None
    facts = {
        "valid_time": cuts.valid_time,
        "test_time": cuts.test_time,
        "cold_events": int(np.count_nonzero(cold)),
        "cold_items": events.item_ids.len() - kept.item_ids.len(),
        "cold_users": events.user_ids.len() - kept.user_ids.len(),
    }
    return kept, splitting.temporal(kept.offsets(), kept.timestamps, cuts), facts
