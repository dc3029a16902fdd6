"""Turn a log into a prepared dataset: read, check, encode, filter, split, write; all or nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.folders import remove_leftovers, replacing_folder, with_home
from recsys.datasets.keywords import takes
from recsys.datasets.prepared.link import described
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.writer import write_dataset
from recsys.datasets.preparing.catalog import build_catalog
from recsys.datasets.preparing.denoising import drop_noise
from recsys.datasets.preparing.description import Lengths, Times, describe_events
from recsys.datasets.preparing.dividing import divide_events
from recsys.datasets.preparing.event_arrays import event_arrays
from recsys.datasets.preparing.event_options import LOCAL_HOUR
from recsys.datasets.preparing.event_values import code_columns
from recsys.datasets.preparing.events import (
    Events,
    count_duplicates,
    keep_events,
    load_events,
    sort_events,
    with_items,
)
from recsys.datasets.preparing.filters import k_core
from recsys.datasets.preparing.inputs import (
    Sources,
    describe_source,
    label_of,
    nothing_left,
    open_sources,
)
from recsys.datasets.preparing.item_features import fitting_ids
from recsys.datasets.preparing.options import OPTIONS, PrepareKeywords, PrepareOptions
from recsys.datasets.preparing.shard_job import Each, in_this_process
from recsys.datasets.preparing.sharded import build_shards, refuse_shards
from recsys.datasets.preparing.slates import slate_arrays, take_passed
from recsys.datasets.preparing.user_columns import code_users
from recsys.datasets.reading.item_features import ItemFeatures, read_item_features
from recsys.datasets.reading.item_metadata import distinct_items, read_item_file
from recsys.datasets.reading.user_file import read_user_file
from recsys.datasets.schema import ITEM
from recsys.datasets.sources.finding import Source, find_source, items_sha256
from recsys.datasets.splitting.parts import describe, training_events
from recsys.datasets.times.time_zones import check_time_zone, zone_column
from recsys.errors import ArgumentError, DataError


@takes(*OPTIONS)
def prepare(
    log: Any,
    out: str | Path,
    *,
    name: str | None = None,
    items: Any = None,
    time_zone: str | None = None,
    shards: int | None = None,
    overwrite: bool = False,
    notify: Callable[[str], None] | None = None,
    each: Each | None = None,
    **options: Unpack[PrepareKeywords],
) -> SequenceStore:
    """Prepare a log into a folder.

    Memory stays at some tens of bytes an event besides the distinct ids. If ``out`` already holds the same
    log prepared with the same options, it is opened and nothing is done.

    Args:
        log: path of a file or of a folder of Parquet parts, known name (``ml-100k``), or a log in memory:
            polars, pandas, Arrow, numpy, a mapping of columns, a list of rows (see
            `recsys.datasets.reading.frames.as_frame`).
        out: folder to write; it appears whole or not at all.
        name: of the dataset in reports; None for the known name, the folder or the file of the log.
        items: file or frame with item titles and other columns, see `read_item_metadata`; known logs bring
            theirs.
        time_zone: of the users, IANA name or ``+HH:MM``, or ``column:NAME`` where a column of the log has
            each event's, as one of these or as whole minutes east of UTC; None if unknown.
        shards: write so many datasets with one catalog, a user whole in one of them, and a manifest (see
            `recsys.datasets.prepared.shards`); memory then is that of a part of the log or of one shard.
            None writes one dataset.
        overwrite: whether to replace a prepared dataset that was made otherwise.
        notify: receives lines worth showing, such as where a known log was fetched from.
        each: does the pieces of work on shards; None does one after the other in this process.
        options: the fields of `recsys.datasets.splitting.options.SplitOptions` (how the log is split),
            `recsys.datasets.preparing.options.FilterOptions` (who is kept),
            `recsys.datasets.preparing.options.ItemOptions` (what is taken of the items),
            `recsys.datasets.preparing.event_options.EventOptions` (what else is kept of events) and
            `recsys.datasets.reading.options.ReadOptions` (how the log is read).

    Returns:
        The opened dataset.

    Raises:
        ArgumentError: an option is unknown or out of range.
        DataError: the log is bad, nothing is left of it, ``out`` holds something else, or the disk is full.
    """
    first = PrepareOptions.of(options, time_zone=time_zone)  # refused before anything is fetched
    asked = first.items
    if shards is not None:
        refuse_shards(shards, first)
    if time_zone is not None:
        check_time_zone(time_zone)
    elif first.events.hours:
        raise ArgumentError(
            f"{first.events.hours[0]}= names {LOCAL_HOUR}, the hour of local times: pass time_zone="
        )
    if not isinstance(out, str | Path) or not str(out) or "\0" in str(out):
        raise ArgumentError(f"out={out!r} names no folder: give the path of one")
    folder = with_home(out)
    remove_leftovers(folder)
    source = find_source(log, notify)
    parts = {
        role: find_source(options[role], notify)
        for role in ("valid", "test")
        if options.get(role) is not None
    }
    for role, part in parts.items():
        if part.sha256 == source.sha256:
            raise DataError(f"{part.file}: is the training log itself; pass {role}= another file")
    sources = Sources(log=source, parts=parts, items=items if items is not None else source.items)
    sha256 = {"items": items_sha256(sources.items), **{role: part.sha256 for role, part in parts.items()}}
    if first.events.users is not None:
        sha256["users"] = items_sha256(first.events.users, "users")
    features = None
    if asked.asked:
        if sources.items is None:
            raise ArgumentError(f"{asked.asked[0]}= takes what it asks for from items=: give the item file")
        features = read_item_features(
            read_item_file(sources.items), tags=asked.tags, words=asked.words, vectors=asked.item_vectors
        )
        sha256["item_features"] = features.digest
    chosen = PrepareOptions.of(options, time_zone=time_zone, sha256=sha256, shards=shards)
    if folder.exists() and not _may_replace(folder, source, chosen, overwrite):
        return SequenceStore.open(folder)
    with replacing_folder(folder, overwrite=overwrite) as temporary:
        name = name or source.name
        if shards is None:
            _build(temporary, sources, chosen, features, name, notify)
        else:
            one_by_one = each or in_this_process
            build_shards(temporary, sources, chosen, features, name, notify, n_shards=shards, each=one_by_one)
    return SequenceStore.open(folder)


def _may_replace(folder: Path, source: Source, options: PrepareOptions, overwrite: bool) -> bool:
    """Whether to write although the folder exists; False if it is already what was asked for."""
    if not folder.is_dir():
        raise DataError(f"{folder}: exists and is no folder; choose another one")
    if not any(folder.iterdir()):
        return True
    try:
        meta, files = described(folder)
    except DataError:
        # Never delete what is not ours, whatever was asked.
        raise DataError(f"{folder}: exists and is not a prepared dataset; choose another folder") from None
    same = meta.get("source", {}).get("sha256") == source.sha256 and meta.get("options") == options.record()
    if same:
        try:
            SequenceStore.open(folder)
            return False
        except DataError:
            if not overwrite:
                raise
    if _is_of_a_run(folder):
        raise DataError(
            f"{folder}: holds the data of the run around it, which would answer from another log; choose"
            " another folder"
        )
    if not overwrite:
        raise DataError(
            f"{folder}: holds a dataset made from another log or with other options;"
            " choose another folder or pass overwrite=True"
        )
    foreign = {entry.name for entry in folder.iterdir()} - files
    if foreign:
        raise DataError(
            f"{folder}: holds {min(foreign)!r} besides the prepared dataset; move it elsewhere, or choose"
            " another folder"
        )
    return True


def _is_of_a_run(folder: Path) -> bool:
    """Whether a model was, or is being, trained on the data of this very folder."""
    run = folder.resolve().parent
    return any((run / name).exists() for name in ("run.json", "checkpoint/state.json"))


def _build(
    folder: Path,
    sources: Sources,
    options: PrepareOptions,
    features: ItemFeatures | None,
    name: str,
    notify: Callable[[str], None] | None,
) -> None:
    source = sources.log
    checked, part_column = open_sources(sources, options, notify)
    item_file = read_item_file(sources.items) if sources.items is not None else None
    metadata = distinct_items(item_file) if item_file is not None else None
    column = zone_column(options.time_zone)
    events = load_events(checked, folder, zone_column=column, part_column=part_column, options=options.events)
    (folder / "columns.parquet").unlink(missing_ok=True)
    events, passed = take_passed(sort_events(events))
    before = {"users": events.user_ids.len(), "items": events.item_ids.len(), "events": len(events.users)}
    duplicates = count_duplicates(events)
    least_user, least_item = options.filters.least("user"), options.filters.least("item")
    core = k_core(events.users, events.items, min_user_events=least_user, min_item_events=least_item)
    events = keep_events(events, core.keep)
    if not len(events.users):
        raise nothing_left(source.file, least_user, least_item)
    keep_cold = options.items.keep_cold
    events, bounds, split_facts = divide_events(events, options.split, options.split_by, keep_cold=keep_cold)
    if keep_cold and metadata is not None:
        events = with_items(events, fitting_ids(metadata[ITEM], events.item_ids, label_of(sources.items)))
    noise_facts: dict[str, int] = {}
    unread: dict[str, NDArray[Any]] = {}
    if options.items.denoise is not None:
        assert features is not None
        denoised = drop_noise(events, features, options.items.denoise)
        events, bounds, unread, noise_facts = (
            denoised.events,
            denoised.bounds,
            denoised.arrays,
            denoised.facts,
        )
    offsets = events.offsets()
    arrays = event_arrays(events, bounds, options.time_zone) | unread
    training = training_events(bounds, offsets)
    coded, columns = code_columns(events.values, options.events, training, checked.raw.label)
    arrays |= coded
    file = options.events.users
    of_users = code_users(
        events,
        bounds,
        options.events,
        None if file is None else read_user_file(file, options.events.of_users),
        checked.raw.label,
    )
    if of_users is not None:
        arrays["user_codes"] = of_users.codes
        columns = {"events": [], "requests": [], **(columns or {}), "users": of_users.record}
    slates, slate_facts = slate_arrays(events, passed, checked.raw.label)
    arrays |= slates
    counts = np.bincount(events.items[training], minlength=events.item_ids.len())
    catalog = build_catalog(
        events.item_ids,
        counts,
        metadata=metadata,
        features=features,
        label=label_of(sources.items),
        keep_cold=keep_cold,
        notify=notify,
    )
    arrays |= catalog.arrays
    times = None
    if "timestamps" in arrays:
        times = Times.of(arrays["timestamps"], arrays.get("utc_offsets")).described(options.time_zone)
    about = describe_source(name, sources, checked, options)
    exported = about.pop("events", None)
    meta = {
        **about,
        "counts": {
            **describe_events(events, offsets, events.item_ids.len()),
            "duplicate_events": duplicates,
            **_target_facts(events),
            **slate_facts,
            **noise_facts,
            **({} if of_users is None else of_users.facts),
            **catalog.facts,
        },
        "removed": {
            "before": before,
            "rounds": core.rounds,
            "events": core.removed_events,
            "users": core.removed_users,
            "items": core.removed_items,
        },
        "split": {"name": options.split, **split_facts, **describe(bounds, offsets)},
        "tie_share": bounds.tie_share,
        "lengths": Lengths.of(offsets).described(),
        "time": times,
        **({"event_columns": columns} if columns is not None else {}),
        **({"events": exported} if exported is not None else {}),
    }
    write_dataset(
        folder,
        arrays=arrays,
        users=events.user_ids,
        items=catalog.table,
        meta=meta,
        tags=catalog.tags,
    )


def _target_facts(events: Events) -> dict[str, int]:
    """How many events are predicted, where not all are."""
    targets = None if events.values is None else events.values.targets
    return {} if targets is None else {"target_events": int(np.count_nonzero(targets))}
