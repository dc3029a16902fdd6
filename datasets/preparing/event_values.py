"""Further columns of a log's events: read as words or numbers, and coded by what training events hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.event_columns import MISSING, EventColumn, codes_of_numbers
from recsys.datasets.preparing.event_conditions import Condition, meeting, words_of
from recsys.datasets.preparing.event_options import EventOptions
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = [
    "ColumnValues",
    "EventValues",
    "code_columns",
    "coded",
    "column_values",
    "numbers_of",
    "read_values",
]

MOST_VALUES = 65_535
"""Distinct words that a column may have: one with more is an id, which nothing is learned of by rows."""

OWN_RANGES = 64
"""Distinct numbers of training events up to which each is a range of its own."""

QUANTILES = 16
"""Ranges into which more are cut, with about as many training events in each."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ColumnValues:
    """One column of N events, of words or of numbers.

    Attributes:
        codes: (N,) int32 place of each word, -1 where it is missing; None for numbers.
        words: the distinct words in rising order.
        numbers: (N,) float64, NaN where one is missing; None for words.
    """

    codes: NDArray[np.int32] | None = None
    words: tuple[str, ...] = ()
    numbers: NDArray[np.float64] | None = None

    def take(self, order: NDArray[np.int64]) -> "ColumnValues":
        """The same of some events."""
        return ColumnValues(
            codes=None if self.codes is None else self.codes[order],
            words=self.words,
            numbers=None if self.numbers is None else self.numbers[order],
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EventValues:
    """What is kept of N events besides user, item and time.

    Attributes:
        columns: by name.
        weights: (N,) float32, or None where all count alike.
        targets: (N,) bool, events that are predicted; None for all.
        slates: what was shown at every row of the log, lists of ids; None where nothing was asked for.
        rows: (N,) int64 row of each event in the log, where there are slates.
        places: (N,) int64 place of each event among all rows of the sorted log, once they were sorted.
    """

    columns: Mapping[str, ColumnValues]
    weights: NDArray[np.float32] | None = None
    targets: NDArray[np.bool_] | None = None
    slates: "pl.Series | None" = None
    rows: NDArray[np.int64] | None = None
    places: NDArray[np.int64] | None = None

    def take(self, order: NDArray[np.int64]) -> "EventValues":
        """The same of some events."""
        return EventValues(
            columns={name: column.take(order) for name, column in self.columns.items()},
            weights=None if self.weights is None else self.weights[order],
            targets=None if self.targets is None else self.targets[order],
            slates=self.slates,
            rows=None if self.rows is None else self.rows[order],
            places=None if self.places is None else self.places[order],
        )


def read_values(columns: "Mapping[str, pl.Series]", options: EventOptions, label: str) -> EventValues | None:
    """Read columns of a log.

    A column of numbers, or of text that is all numbers, is one of numbers; any other is one of words.

    Args:
        columns: of the log by name, as they stand there.
        options: as what each is asked for.
        label: of the log, for messages.

    Returns:
        What was asked for; None where that is nothing.

    Raises:
        DataError: a column of too many words, a weight that is no number of 0 or more, or a condition that no
            event meets.
    """
    if not options.asked:
        return None
    wanted = dict.fromkeys((*options.events, *options.requests, *options.of_users_in_log))
    found = {name: column_values(columns[name], f"{label}: column {name!r}") for name in wanted}
    weights, targets = None, None
    if options.weight_column is not None:
        weights = _weights(columns[options.weight_column], f"{label}: column {options.weight_column!r}")
    if options.target_where is not None:
        condition = Condition.read(options.target_where)
        targets = meeting(columns[condition.column], condition, f"{label}: column {condition.column!r}")
    slates = rows = None
    if options.shown_column is not None:
        slates = _slates(columns[options.shown_column], f"{label}: column {options.shown_column!r}")
        rows = np.arange(len(slates))
    return EventValues(columns=found, weights=weights, targets=targets, slates=slates, rows=rows)


def code_columns(
    values: EventValues | None, options: EventOptions, training: NDArray[np.bool_], label: str
) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None]:
    """Make codes of columns by the values that training events hold.

    Args:
        values: of N events, as they stay.
        options: what is asked for.
        training: (N,) bool, events that train.
        label: of the log, for messages.

    Returns:
        Arrays by name, and what meta.json shall say of the codes; None where there are no codes.

    Raises:
        DataError: no training event has a value, counts, or is to be predicted.
    """
    if values is None:
        return {}, None
    arrays: dict[str, NDArray[Any]] = {}
    if values.weights is not None:
        if not values.weights[training].any():
            raise DataError(f"{label}: all weights of training events are 0; nothing could be learned")
        arrays["event_weights"] = values.weights
    if values.targets is not None:
        if not values.targets[training].any():
            raise DataError(
                f"{label}: no training event meets target_where={options.target_where!r}; nothing could be"
                " learned"
            )
        arrays["event_targets"] = values.targets
    if not options.events and not options.requests:
        return arrays, None
    found = {
        name: coded(name, values.columns[name], training, label)
        for name in dict.fromkeys((*options.events, *options.requests))
    }
    record = {}
    for role, name, names in (
        ("events", "event_codes", options.events),
        ("requests", "request_codes", options.requests),
    ):
        record[role] = [found[column][0].record() for column in names]
        if names:
            arrays[name] = np.stack([found[column][1] for column in names], axis=1)
    return arrays, record


def coded(
    name: str, values: ColumnValues, training: NDArray[np.bool_], label: str
) -> tuple[EventColumn, NDArray[np.int32]]:
    """Make codes of one column by the values that training knows.

    Args:
        name: of the column.
        values: of n events or users.
        training: (n,) bool, those that train.
        label: of the log or file, for messages.

    Returns:
        What the codes mean, and (n,) codes.

    Raises:
        DataError: nothing that trains has a value.
    """
    nothing = DataError(f"{label}: column {name!r} has no value at a training event; leave the column out")
    if values.numbers is not None:
        known = values.numbers[training]
        known = known[~np.isnan(known)]
        if not len(known):
            raise nothing
        edges = _edges(known)
        return EventColumn(name=name, edges=tuple(edges.tolist())), codes_of_numbers(values.numbers, edges)
    assert values.codes is not None
    trained = np.zeros(len(values.words) + 1, dtype=bool)  # the last is that of -1, missing
    trained[values.codes[training]] = True
    trained[-1] = False
    if not trained.any():
        raise nothing
    numbers = np.where(trained, np.cumsum(trained), MISSING).astype(np.int32)
    words = tuple(word for word, there in zip(values.words, trained, strict=False) if there)
    return EventColumn(name=name, values=words), numbers[values.codes]


def _edges(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where the numbers of training events are cut."""
    distinct = np.unique(numbers)
    if len(distinct) <= OWN_RANGES:
        return distinct[1:]
    cuts = np.unique(np.quantile(numbers, np.arange(1, QUANTILES) / QUANTILES, method="higher"))
    kept: NDArray[np.float64] = cuts[cuts > distinct[0]]
    return kept


def column_values(series: "pl.Series", where: str) -> ColumnValues:
    """Read a column as one of numbers, where it holds nothing else, or of words.

    Args:
        series: as it stands in the log or file.
        where: what messages call it.

    Raises:
        DataError: too many words, an infinite number, or neither words nor numbers.
    """
    import polars as pl

    if not series.dtype.is_numeric():
        words = words_of(series, where)
        words = words.set(words == "", None)
        numbers = numbers_of(words)
        if numbers is None:
            distinct = words.drop_nulls().unique().sort()
            if len(distinct) > MOST_VALUES:
                raise DataError(
                    f"{where} holds {len(distinct):,} distinct values, and {MOST_VALUES:,} are the most: it"
                    " names events or users; leave it out, or group its values"
                )
            codes = distinct.search_sorted(words).to_numpy().astype(np.int32)
            codes[words.is_null().to_numpy()] = -1
            return ColumnValues(codes=codes, words=tuple(distinct.to_list()))
        series = numbers
    found = series.cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    if np.isinf(found).any():
        raise DataError(f"{where} holds an infinite number; leave its event out, or write a number")
    return ColumnValues(numbers=found)


def numbers_of(words: "pl.Series") -> "pl.Series | None":
    """Text as Float64, null where it is empty; None where some is no number, or all is empty."""
    import polars as pl

    words = words.set(words == "", None)
    numbers = words.cast(pl.Float64, strict=False)
    nulls = numbers.null_count()
    return None if nulls > words.null_count() or nulls == len(numbers) else numbers


def _weights(series: "pl.Series", where: str) -> NDArray[np.float32]:
    import polars as pl

    given = series if series.dtype.is_numeric() else words_of(series, where)
    weights = given.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    bad = ~(np.isfinite(weights) & (weights >= 0) & (weights < 1e30))
    if bad.any():
        first = given[int(np.flatnonzero(bad)[0])]
        held = "holds nothing" if first is None else f"holds {first!r}"
        raise DataError(f"{where} {held} among its weights: give a number of 0 or more for every event")
    return weights.astype(np.float32)


def _slates(series: "pl.Series", where: str) -> "pl.Series":
    """Lists of ids, under the name by which messages know the column."""
    import polars as pl

    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if not isinstance(series.dtype, pl.List):
        # Text with | between; a list that JSON or Python wrote has brackets, commas and quotes.
        text = pl.col("text").str.strip_chars()
        listed = text.str.starts_with("[") & text.str.ends_with("]")
        inner = text.str.strip_chars("[]").str.split(",").list.eval(pl.element().str.strip_chars(" \t'\""))
        frame = pl.DataFrame({"text": words_of(series, where)})
        series = frame.select(pl.when(listed).then(inner).otherwise(text.str.split("|")))["text"]
    if not (series.dtype.inner.is_numeric() or series.dtype.inner in (pl.String, pl.Null)):  # type: ignore[attr-defined]
        raise DataError(f"{where} holds lists of {series.dtype.inner}; give lists of item ids")  # type: ignore[attr-defined]
    return series.alias(where)
