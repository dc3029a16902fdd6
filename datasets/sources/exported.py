"""Logs that an event store was exported to say so: by which store, and up to which event."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from recsys.datasets.reading.parquet_parts import parquet_parts

_KEY = b"recsys.events"
_MAGIC = b"PAR1"


class Stamp(NamedTuple):
    """The event store that a log was exported from, and the last place in it that the log holds."""

    store: str
    through: int


def stamp_metadata(store: str, after: int, through: int) -> dict[bytes, bytes]:
    """Parquet's key and value of an export of the events with after < seq <= through."""
    return {_KEY: json.dumps({"store": store, "after": after, "through": through}).encode()}


def read_stamp(*logs: Any) -> Stamp | None:
    """Where logs were exported from, if they say it.

    Args:
        logs: paths of files or of folders of Parquet parts, or frames, which say nothing. Of several exports
            of one store the last counts; exports of several stores have no last place.
    """
    stamps = [
        stamp
        for log in logs
        if isinstance(log, str | Path)
        for stamp in _stamps(parquet_parts(Path(log)) or (Path(log),))
    ]
    if len({stamp.store for stamp in stamps}) != 1:
        return None
    return max(stamps)


def _stamps(files: Iterable[Path]) -> Iterable[Stamp]:
    for file in files:
        if not _is_parquet(file):
            continue
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            found = (pq.read_schema(file).metadata or {}).get(_KEY)
            if found is not None:
                stamp = json.loads(found)
                yield Stamp(str(stamp["store"]), int(stamp["through"]))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            continue  # the reader of its rows says what is wrong with the file


def _is_parquet(file: Path) -> bool:
    if not file.is_file():  # a pipe is read once, by the reader of its rows
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
