"""Exposures as a Parquet file, each with the items of the events that came of it."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from recsys.errors import ArgumentError, DataError
from recsys.events.exposures import Exposure, ExposureStore
from recsys.events.store import EventStore, RawId
from recsys.files import replacing, user_path


def write_exposures(store: EventStore, out: str | Path) -> int:
    """Write what a store keeps of answers, whole or not at all.

    Columns: request_id (string), user_id (int64 or string, null for a history of nobody), model, version
    (string), items (list of int64 or string, best first), time (int64, unix seconds), shadow (bool), and
    chosen (list): the items of the events that name the request.

    Args:
        store: open; others may write to it meanwhile.
        out: a .parquet file, replaced if it is there.

    Returns:
        Rows.

    Raises:
        ArgumentError: `out` is no .parquet name.
        DataError: nothing is kept, or ids are of two kinds.
        EventStoreError: the store cannot be read.
        RunError: `out` cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = user_path(out)
    if path.suffix != ".parquet":
        raise ArgumentError(f"{out}: is written as Parquet; choose a name that ends in .parquet")
    if not isinstance(store, ExposureStore):
        raise ArgumentError("this store keeps no exposures; name a SQLite file or a postgresql:// database")
    parts = store.exposures()
    first = next(parts, [])
    if not first:
        raise DataError(f"{path}: would be empty: the store holds no exposure yet")
    chosen: dict[str, list[RawId]] = {}
    for stored in chain.from_iterable(store.read_all()):
        if stored.event.request_id is not None:
            chosen.setdefault(stored.event.request_id, []).append(stored.event.item)
    user = _arrow(_one_kind("user", (own.user for part in store.exposures() for own in part)))
    item = _arrow(_one_kind("item", (i for part in store.exposures() for own in part for i in own.items)))
    schema = pa.schema(
        [
            ("request_id", pa.string()),
            ("user_id", user),
            ("model", pa.string()),
            ("version", pa.string()),
            ("items", pa.list_(item)),
            ("time", pa.int64()),
            ("shadow", pa.bool_()),
            ("chosen", pa.list_(item)),
        ]
    )
    rows, kind = 0, int if item == pa.int64() else str
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in chain([first], parts):
            writer.write_table(pa.table(_columns(part, chosen, kind), schema=schema))
            rows += len(part)
    return rows


def _columns(part: Sequence[Exposure], chosen: dict[str, list[RawId]], kind: type) -> dict[str, list[Any]]:
    return {
        "request_id": [own.request_id for own in part],
        "user_id": [own.user for own in part],
        "model": [own.model for own in part],
        "version": [own.version for own in part],
        "items": [list(own.items) for own in part],
        "time": [own.time for own in part],
        "shadow": [own.shadow for own in part],
        # An event's item may be one of no catalog, and of another kind.
        "chosen": [[i for i in chosen.get(own.request_id, ()) if type(i) is kind] for own in part],
    }


def _one_kind(name: str, values: Iterator[RawId | None]) -> type:
    """The kind of ids; text where there is none.

    Raises:
        DataError: there are two.
    """
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1:
        raise DataError(f"{name} ids of the exposures are numbers and text; a column holds one kind")
    return kinds.pop() if kinds else str


def _arrow(kind: type) -> Any:
    import pyarrow as pa

    return pa.int64() if kind is int else pa.string()
