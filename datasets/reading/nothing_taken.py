"""Rows of a log that say what was shown and have no item: nothing was taken.

Everywhere else an event without an id is a mistake. Here such rows bear one item of their own through
reading and sorting, so that each keeps its place among its user's events, and are taken out again.
"""

from dataclasses import replace

from recsys.datasets.collecting import reading
from recsys.datasets.reading import values
from recsys.datasets.reading.raw_log import RawLog
from recsys.errors import DataError

__all__ = ["NOTHING", "fill_nothing_taken"]

NOTHING = -(2**53) + 1
"""Id of the item of such rows: the least whole number that every type of ids holds exactly."""


def fill_nothing_taken(raw: RawLog, shown: str | None) -> RawLog:
    """The log with an item for the rows of which nothing was taken.

    Args:
        raw: a log before its values are looked at.
        shown: its column of what was shown; None where it has none.

    Raises:
        DataError: that column holds neither lists nor text.
    """
    import polars as pl

    if shown is None:
        return raw
    with reading(raw.label, raw.path, raw.separator):
        schema = raw.frame.collect_schema()
    item, given = schema[raw.item], schema[shown]
    if isinstance(given, pl.List | pl.Array):
        full = pl.col(shown).cast(pl.List(given.inner)).list.drop_nulls().list.len() > 0
    elif given in (pl.String, pl.Categorical, pl.Enum, pl.Null) or given.is_integer():
        full = pl.col(shown).cast(pl.String).str.strip_chars(" \t[]|").str.len_chars() > 0
    else:
        raise DataError(
            f"{raw.label}: column {shown!r} has type {given}; give lists of item ids, or text with | between"
        )
    if item.is_integer():
        ids = pl.col(raw.item).cast(pl.Int64)
        own = pl.lit(NOTHING, dtype=pl.Int64)
    elif item.is_float():
        ids, own = pl.col(raw.item).cast(pl.Float64), pl.lit(float(NOTHING))
    elif item in (pl.String, pl.Categorical, pl.Enum):
        ids, own = pl.col(raw.item).cast(pl.String), pl.lit(str(NOTHING))
    else:
        return raw  # refused by its type
    nothing = values.id_missing(raw.item, item) & full.fill_null(False)
    return replace(
        raw, frame=raw.frame.with_columns(pl.when(nothing).then(own).otherwise(ids).alias(raw.item))
    )
