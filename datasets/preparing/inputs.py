"""What a preparation reads, opened: the log, further parts of it, the item file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.datasets.preparing.options import PrepareOptions
from recsys.datasets.reading.logs import PART, open_log, open_parts
from recsys.datasets.reading.validate import CheckedLog
from recsys.datasets.sources.exported import read_stamp
from recsys.datasets.sources.finding import Source
from recsys.datasets.times.time_zones import zone_column
from recsys.errors import ArgumentError, DataError

__all__ = ["Sources", "describe_source", "label_of", "nothing_left", "open_sources"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All that a preparation reads: the log, further parts of it by name, and the item file."""

    log: Source
    parts: Mapping[str, Source]
    items: Any


def open_sources(
    sources: Sources, options: PrepareOptions, notify: Callable[[str], None] | None
) -> tuple[CheckedLog, str | None]:
    """Open the log, and the column that states the parts of its split if there is one.

    Args:
        sources: what to read.
        options: of the preparation.
        notify: told what was noticed in a log of one's own.

    Raises:
        ArgumentError: an option needs times and the log has none.
        DataError: it cannot be read.
    """
    checked, part_column = _opened(sources, options)
    if not checked.has_times:
        if options.time_zone is not None:
            raise ArgumentError(
                f"{sources.log.file}: time_zone needs times; this log has the order of events alone"
            )
        if options.split == "temporal":
            raise ArgumentError("split='temporal' needs times; this log has the order of events alone")
    if notify is not None and not sources.log.known:
        for notice in checked.notices:
            notify(notice)
    return checked, part_column


def _opened(sources: Sources, options: PrepareOptions) -> tuple[CheckedLog, str | None]:
    zone = zone_column(options.time_zone)
    columns = {} if zone is None else {"zone": zone}
    part = getattr(options.split_by, "split_column", None)
    for name in options.events.columns:
        if name not in (zone, part):
            of_events = name not in options.events.of_users_in_log
            columns[f"column {name!r} of {'events' if of_events else 'users'}"] = name
    shown = options.events.shown_column
    if sources.parts:
        logs = {"train": sources.log.log, **{part: source.log for part, source in sources.parts.items()}}
        return open_parts(logs, options.read, columns=columns, shown=shown), PART
    if part is not None:
        columns["part"] = part
    return open_log(sources.log.log, options.read, columns=columns, shown=shown), part


def describe_source(
    name: str, sources: Sources, checked: CheckedLog, options: PrepareOptions
) -> dict[str, Any]:
    """What meta.json says of where a dataset comes from."""
    source = sources.log
    stamp = read_stamp(source.log, *(part.log for part in sources.parts.values()))
    return {
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
        "options": options.record(),
        **({"events": stamp._asdict()} if stamp is not None else {}),
    }


def label_of(items: Any) -> str:
    """An item file as messages name it."""
    return str(items) if isinstance(items, str | Path) else "items"


def nothing_left(file: str, least_user: int, least_item: int) -> DataError:
    """The error for a log of which a filter leaves nothing."""
    return DataError(
        f"{file}: no event is left after keeping users with {least_user} and items with"
        f" {least_item} events; pass a smaller min_events="
    )
