"""Slates of a log: what was shown at each event, as items of the catalog."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.events import Events, keep_events
from recsys.datasets.reading.columns import exploded
from recsys.datasets.reading.nothing_taken import NOTHING
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["MOST_SHOWN", "Passed", "next_kept", "slate_arrays", "take_passed"]

MOST_SHOWN = 1_000
"""Items of the longest slate: the loss scores as many for every target of a batch."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Passed:
    """K rows of a log of which nothing was taken, in the order of the sorted log.

    Attributes:
        places: (K,) int64 place of each in the sorted log, among all of its rows.
        rows: (K,) int64 row of each in the log itself.
        weights: (K,) float32 how much each counts; None where all count alike.
    """

    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    weights: NDArray[np.float32] | None


def take_passed(events: Events) -> tuple[Events, Passed | None]:
    """Take the rows without an item out of a sorted log.

    Returns:
        The events that are left, and what was taken out; None where no slates were asked for.

    Raises:
        DataError: no row has an item.
    """
    values = events.values
    if values is None or values.slates is None:
        return events, None
    # The place of every row is needed to say later before which event a slate was shown.
    events = replace(events, values=replace(values, places=np.arange(len(events.users))))
    assert events.values is not None
    ids = events.item_ids
    nothing = ids == (NOTHING if ids.dtype.is_integer() else str(NOTHING))
    if not nothing.any():
        out = np.zeros(len(events.users), dtype=np.bool_)
    else:
        out = events.items == int(nothing.arg_max() or 0)
    if out.all():
        raise DataError(f"{values.slates.name}: no row has an item; nothing was taken of what was shown")
    weights = values.weights
    assert events.values.rows is not None
    passed = Passed(
        places=np.flatnonzero(out),
        rows=events.values.rows[out],
        weights=None if weights is None else weights[out],
    )
    return keep_events(events, ~out), passed


def next_kept(
    places: NDArray[np.int64], lost: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Before which of the events that stayed each of those that did not stood.

    Args:
        places: (N,) int64 places of the events that stayed, rising.
        lost: (K,) int64 places of the others, rising.
        offsets: (U+1,) int64 first of each user's events that stayed.

    Returns:
        (K,) int64 number of the event behind each, and (K,) bool whether the same user has one before it.
    """
    behind = np.searchsorted(places, lost)
    inner = np.ones(len(places) + 1, dtype=np.bool_)
    inner[offsets] = False
    return behind, inner[behind]


def slate_arrays(
    events: Events, passed: Passed | None, label: str
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """Arrays of `recsys.datasets.prepared.slates`, and what meta.json shall say of them.

    Args:
        events: as they stay.
        passed: from `take_passed`; a slate that no event of its user follows, or none precedes, is left out.
        label: of the log, for messages.

    Raises:
        DataError: a slate is too long, or nothing that was shown is an item of the catalog.
    """
    values = events.values
    if passed is None or values is None or values.slates is None:
        return {}, {}
    assert values.rows is not None
    assert values.places is not None
    before, follows = next_kept(values.places, passed.places, events.offsets())
    own = _items(values.slates, values.rows, events.item_ids, label)
    without = _items(values.slates, passed.rows[follows], events.item_ids, label)
    if not len(own.items):
        raise DataError(
            f"{label}: nothing that was shown at an event is an item of the log{_example(values.slates)}:"
            " write the ids as the item column does"
        )
    full = np.diff(without.offsets) > 0
    arrays: dict[str, NDArray[Any]] = {
        "shown": own.items,
        "shown_offsets": own.offsets,
        "passed": without.items,
        "passed_offsets": np.concatenate(([0], np.cumsum(np.diff(without.offsets)[full]))).astype(np.int64),
        "passed_before": before[follows][full].astype(np.int64),
    }
    if passed.weights is not None:
        arrays["passed_weights"] = passed.weights[follows][full]
    facts = {
        "slates": int(np.count_nonzero(np.diff(own.offsets))),
        "passed_slates": int(np.count_nonzero(full)),
        "shown_unknown": own.unknown + without.unknown,
    }
    return arrays, facts


def _example(slates: "pl.Series") -> str:
    filled = slates.filter((slates.list.len() > 0).fill_null(False))
    return f", for example {filled[0][0]!r}" if filled.len() else ""


@dataclass(frozen=True, slots=True, eq=False)
class _Items:
    """Items of n slates one after the other, where each begins, and how many are not in the catalog."""

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    unknown: int


def _items(slates: "pl.Series", rows: NDArray[np.int64], ids: "pl.Series", label: str) -> _Items:
    import polars as pl

    frame = pl.DataFrame(
        {"slate": np.arange(len(rows)), "id": slates.gather(pl.Series(rows, dtype=pl.UInt32))}
    )
    flat = exploded(frame, "id").drop_nulls()
    text = pl.col("id").cast(pl.String).str.strip_chars()
    if ids.dtype.is_integer():  # 5.0 is 5, as it is among the items
        text = text.cast(pl.Int64, strict=False).fill_null(
            text.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        )
    catalog = pl.DataFrame({"id": ids, "item": np.arange(len(ids), dtype=np.int32)})
    # Each item once in a slate, in the order of the catalog.
    known = flat.with_columns(text).drop_nulls().unique()
    found = known.join(catalog, on="id", how="inner").sort("slate", "item")
    counts = np.bincount(found["slate"].to_numpy(), minlength=len(rows))
    if len(counts) and counts.max() > MOST_SHOWN:
        raise DataError(
            f"{label}: a slate holds {counts.max():,} items, and {MOST_SHOWN:,} are the most: keep those that"
            " were seen"
        )
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return _Items(found["item"].to_numpy().astype(np.int32), offsets, known.height - found.height)
