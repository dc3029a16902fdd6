"""A log in memory, from whatever library, is the same log."""

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from recsys.datasets.reading.frames import as_frame
from recsys.datasets.sources.finding import find_source
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import ArgumentError, DataError

T = 1_600_000_000
ROWS = [("a", 1, T), ("b", 2, T + 1), ("a", 3, T + 2)]
SORTED = [("a", 1, T), ("a", 3, T + 2), ("b", 2, T + 1)]
COLUMNS: dict[str, list[Any]] = {
    "user_id": ["a", "b", "a"],
    "item_id": [1, 2, 3],
    "timestamp": [T, T + 1, T + 2],
}


class Streamed:
    """What other libraries look like that speak Arrow's interface and nothing else."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return pa.table(COLUMNS).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "data",
    [
        pl.DataFrame(COLUMNS),
        pl.LazyFrame(COLUMNS),
        pa.table(COLUMNS),
        pa.record_batch(COLUMNS),
        pa.table({**COLUMNS, "user_id": pa.array(COLUMNS["user_id"]).dictionary_encode()}),
        Streamed(),
        COLUMNS,
        {name: np.array(values) for name, values in COLUMNS.items()},
        {name: pa.array(values) for name, values in COLUMNS.items()},
        {**COLUMNS, "timestamp": np.array(COLUMNS["timestamp"], dtype="datetime64[s]")},
        {**COLUMNS, "timestamp": [datetime.fromtimestamp(t, UTC) for t in COLUMNS["timestamp"]]},
        ROWS,
        [list(row) for row in ROWS],
        tuple(ROWS),
        [dict(zip(COLUMNS, row, strict=True)) for row in ROWS],
        np.array(ROWS, dtype=object),
        np.array(ROWS),
        np.array(ROWS, dtype=[("user_id", "U4"), ("item_id", "i4"), ("timestamp", "i8")]),
    ],
    ids=lambda data: type(data).__name__,
)
def test_the_same_log_from_every_library(data: Any) -> None:
    assert read_interactions(data).rows() == SORTED


def test_numbers_stay_numbers_and_days_are_days() -> None:
    whole = read_interactions(np.array([[1, 2, T], [1, 3, T]]))
    assert whole.rows() == [(1, 2, T), (1, 3, T)]
    assert read_interactions(np.array([[1.0, 2.0, T], [1.0, 3.0, T]])).rows() == whole.rows()
    days = {"user_id": [1], "item_id": [2], "timestamp": np.array(["2020-09-13"], dtype="datetime64[D]")}
    assert read_interactions(days)["timestamp"].to_list() == [1_599_955_200]
    assert read_interactions({**days, "timestamp": [date(2020, 9, 13)]})["timestamp"][0] == 1_599_955_200


def test_rows_without_a_time_are_in_order_where_that_is_said() -> None:
    pairs = [("a", 2), ("b", 9), ("a", 1)]
    assert read_interactions(pairs, time_unit="order")["item_id"].to_list() == [2, 1, 9]
    with pytest.raises(DataError, match="pass time_unit='order'"):
        read_interactions(pairs)


def test_ids_of_two_types_become_text_as_in_a_file() -> None:
    assert read_interactions([(1, 2, T), ("b", 2, T)])["user_id"].to_list() == ["1", "b"]


class Column:
    """As much of a pandas Series as is looked at."""

    def __init__(self, values: list[Any], dtype: Any = None) -> None:
        self.values, self.dtype = values, np.dtype(object) if dtype is None else dtype

    def isna(self) -> "Column":
        return Column([value is None or value != value for value in self.values])

    def to_list(self) -> list[Any]:
        return self.values

    def to_numpy(self) -> Any:
        return np.array(self.values, dtype=self.dtype)

    def __iter__(self) -> Any:
        return iter(self.values)


class Frame:
    """As much of a pandas frame as is looked at, so that the test does not need pandas."""

    iloc = None

    def __init__(self, columns: dict[str, Any], index: str | None = None) -> None:
        self.columns = list(columns)
        self._columns = columns
        self.index = SimpleNamespace(names=[index])

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def reset_index(self) -> "Frame":
        return Frame({"user_id": Column(["a", "b", "a"]), **self._columns})


def test_a_pandas_frame_is_read_column_by_column_with_its_named_index() -> None:
    items = Column([1, 2, 3], np.dtype("int64"))
    times = Column(COLUMNS["timestamp"], np.dtype("datetime64[s]"))
    frame = Frame({"user_id": Column(["a", "b", "a"]), "item_id": items, "timestamp": times})
    assert read_interactions(frame).rows() == SORTED
    assert read_interactions(Frame({"item_id": items, "timestamp": times}, index="user_id")).rows() == SORTED
    mixed = Frame({"user_id": Column([1, "b", float("nan")]), "item_id": items, "timestamp": times})
    with pytest.raises(DataError, match=r"column 'user_id', row 3: the id is missing"):
        read_interactions(mixed)


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_pandas_itself(zone: str | None) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS)
    times = pandas.to_datetime(frame["timestamp"], unit="s", utc=zone is not None)
    frame["timestamp"] = times if zone is None else times.dt.tz_convert(zone)
    for other in (
        frame,
        frame.astype({"user_id": "category"}),
        frame.convert_dtypes(),
        frame.set_index("user_id"),
    ):
        assert read_interactions(other).rows() == SORTED


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "data=None is no log; pass a path, a known name, a frame"),
        (7, "data of type int is no log"),
        (b"log.csv", "data of type bytes is no log"),
        ((row for row in ROWS), "data of type generator is no log"),
        ([], "the list is empty"),
        ([[1, 2, 3], [4, 5]], "each of its rows is (user, item) or (user, item, time)"),
        ([1, 2, 3], "each of its rows is (user, item) or (user, item, time)"),
        (np.zeros((3, 4)), "an array of shape (3, 4) is no log"),
        ({"user_id": [1, 2], "item_id": [1]}, "data of type dict cannot be read as a log"),
        (SimpleNamespace(tocsr=None), "a matrix of users by items has no order of events"),
    ],
)
def test_what_is_no_log_is_one_line(data: Any, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        read_interactions(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_any_type_beside_the_log_tell_two_frames_apart() -> None:
    log = pl.DataFrame(COLUMNS)
    others = [
        pl.Series("x", [b"a", b"\xff", None]),
        pl.Series("x", [b"a", b"\xfe", None]),
        pl.Series("x", [1, 2, None], dtype=pl.Duration("ms")),
        pl.Series("x", [1, 3, None], dtype=pl.Duration("ms")),
    ]
    digests = [find_source(log.with_columns(other)).sha256 for other in others]
    assert len(set(digests)) == 4
    plain = log.with_columns(pl.Series("x", [object()] * 3, dtype=pl.Object))
    assert find_source(plain).sha256 == find_source(log).sha256


def test_names_of_logs_are_left_alone() -> None:
    assert as_frame("ml-100k") is None
