"""Every format of a log reads into the same contract."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given

from recsys.datasets.sources.readers import read_interactions, scan_log

T = 881_250_949
# User 2 comes first, one tie (items 30 then 10 at T), one user out of time order.
EVENTS = [(2, 30, T), (2, 10, T), (1, 20, T + 5), (1, 10, T + 1)]
SORTED = [(1, 10, T + 1), (1, 20, T + 5), (2, 30, T), (2, 10, T)]


def rows(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    return frame.select(frame.columns[:3]).rows()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_parquet_reads_sorted_by_user_then_time_then_place(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame(EVENTS, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(path)
    frame = read_interactions(path)
    assert rows(frame) == SORTED
    assert frame.columns == ["user_id", "item_id", "timestamp"]
    assert frame.dtypes == [pl.Int64] * 3


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_separated_text_reads_whatever_the_separator(tmp_path: Path, separator: str, newline: str) -> None:
    lines = [separator.join(("userId", "movieId", "rating", "timestamp"))]
    lines += [separator.join((str(u), str(i), "4.5", str(t))) for u, i, t in EVENTS]
    path = tmp_path / "ratings.csv"
    path.write_bytes((newline.join(lines) + newline).encode())
    frame = read_interactions(path)
    assert rows(frame) == SORTED
    assert frame["rating"].to_list() == ["4.5"] * 4


def test_u_data_reads_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path / "u.data", "".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in EVENTS))
    assert rows(read_interactions(path)) == SORTED


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_ratings_dat_reads_by_double_colons(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "ratings.dat"
    path.write_bytes("".join(f"{u}::{i}::3::{t}{newline}" for u, i, t in EVENTS).encode())
    assert rows(read_interactions(path)) == SORTED


def test_recbole_inter_reads_by_its_typed_header(tmp_path: Path) -> None:
    text = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    text += "".join(f"{u}\t{i}\t3\t{t}.0\n" for u, i, t in EVENTS)
    frame = read_interactions(write(tmp_path / "x.inter", text))
    assert rows(frame) == SORTED
    assert frame.columns == ["user_id", "item_id", "timestamp", "rating"]


def test_json_lines_read_by_the_keys_of_the_first(tmp_path: Path) -> None:
    text = "".join(
        f'{{"reviewerID": {u}, "asin": "{i}", "unixReviewTime": {t}, "summary": "a \\"b\\""}}\n\n'
        for u, i, t in EVENTS
    )
    frame = read_interactions(write(tmp_path / "reviews.json", text))
    assert rows(frame) == SORTED
    assert frame["summary"][0] == 'a "b"'


def test_plain_user_item_text_reads_in_the_order_of_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "ml-1m.txt", "2 30\n2 10\n1 20\n1 10\n")
    frame = read_interactions(path)
    assert frame.columns == ["user_id", "item_id", "position"]
    assert frame.select("user_id", "item_id").rows() == [(1, 20), (1, 10), (2, 30), (2, 10)]


def test_a_position_column_orders_events(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user_id": [1, 1, 1], "item_id": [7, 8, 9], "pos": [2, 0, 1]}).write_parquet(path)
    frame = read_interactions(path, timestamp_column="pos", time_unit="order")
    assert rows(frame) == [(1, 8, 0), (1, 9, 1), (1, 7, 2)]
    assert frame.columns == ["user_id", "item_id", "position"]


def test_time_unit_order_without_a_column_takes_the_order_of_the_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item\n1,7\n0,5\n1,6\n")
    assert rows(read_interactions(path, time_unit="order")) == [(0, 5, 1), (1, 7, 0), (1, 6, 2)]


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 1_000), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_stated_time_unit_becomes_seconds(tmp_path: Path, unit: str, factor: int, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [T * factor, (T + 1) * factor - 1]})
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    assert read_interactions(path, time_unit=unit)["timestamp"].to_list() == [T, T]


def test_events_within_one_second_are_ordered_by_their_fraction(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", f"user,item,time\n1,5,{T}900\n1,6,{T}100\n1,7,{T}500\n")
    frame = read_interactions(path, time_unit="ms")
    assert rows(frame) == [(1, 6, T), (1, 7, T), (1, 5, T)]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_datetimes_of_any_resolution_become_unix_seconds(unit: str) -> None:
    moment = datetime(2024, 5, 31, 17, 0, 0, tzinfo=UTC)
    times = pl.Series([moment], dtype=pl.Datetime(unit, "UTC")).dt.convert_time_zone("Asia/Tokyo")  # type: ignore[arg-type]
    frame = pl.DataFrame({"user": [1], "item": [1], "datetime": times})
    assert read_interactions(frame)["timestamp"].to_list() == [int(moment.timestamp())]


def test_dates_become_midnight_utc() -> None:
    frame = pl.DataFrame({"user": [1], "item": [1], "date": [date(1970, 1, 3)]})
    assert read_interactions(frame)["timestamp"].to_list() == [2 * 86_400]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2012-04-03 18:00:09", 1_333_476_009),
        ("2012-04-03T18:00:09", 1_333_476_009),
        ("2012-04-03T18:00:09Z", 1_333_476_009),
        ("2012-04-03T20:00:09.500+02:00", 1_333_476_009),
        ("2012-04-03 18:00", 1_333_476_000),
        ("2012-04-03", 1_333_411_200),
        ("Tue Apr 03 18:00:09 +0000 2012", 1_333_476_009),
        ("1333476009.75", 1_333_476_009),
        ("1.333476009e9", 1_333_476_009),
    ],
)
def test_times_written_as_text_become_unix_seconds(tmp_path: Path, text: str, expected: int) -> None:
    path = write(tmp_path / "log.csv", f"user,item,time\n1,2,{text}\n1,3,{text}\n")
    assert read_interactions(path)["timestamp"].to_list() == [expected] * 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "20", "-3"], [1, 20, -3]),
        (["1.0", "20", "3."], [1, 20, 3]),
        (["007", "7", "8"], ["007", "7", "8"]),
        (["a", "7", "1.5"], ["a", "7", "1.5"]),
        ([" 4", "5 ", "6"], [4, 5, 6]),
        (["9007199254740993", "1", "2"], [9007199254740993, 1, 2]),
        (["123456789012345678901", "1", "2"], ["123456789012345678901", "1", "2"]),
    ],
)
def test_text_ids_become_numbers_only_where_nothing_is_lost(
    tmp_path: Path, values: list[str], expected: list[object]
) -> None:
    lines = "".join(f"1,{value},{T + place}\n" for place, value in enumerate(values))
    path = write(tmp_path / "log.csv", "user,item,time\n" + lines)
    assert read_interactions(path)["item_id"].to_list() == expected


def test_whole_floats_and_categories_are_ids() -> None:
    frame = pl.DataFrame(
        {
            "user": pl.Series([2.0, 1.0]),
            "item": pl.Series(["b", "a"], dtype=pl.Categorical),
            "timestamp": [5.0, 6.0],
        }
    )
    read = read_interactions(frame)
    assert read.rows() == [(1, "a", 6), (2, "b", 5)]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", f"user_id,who,what,when\nx,1,2,{T}\n")
    frame = read_interactions(path, user_column="who", item_column="what", timestamp_column="when")
    assert rows(frame) == [(1, 2, T)]


def test_columns_of_a_file_without_a_header_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", f"{T},7,3\n{T},8,4\n")
    frame = read_interactions(
        path, user_column="column_2", item_column="column_3", timestamp_column="column_1"
    )
    assert rows(frame) == [(7, 3, T), (8, 4, T)]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time\n1,2,{T}\n", encoding="utf-8-sig")
    assert rows(read_interactions(path)) == [(1, 2, T)]
    path.write_text(f"1,2,{T}\n3,2,{T}\n", encoding="utf-8-sig")
    assert rows(read_interactions(path)) == [(1, 2, T), (3, 2, T)]


def test_quoted_fields_may_hold_the_separator(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", f'user,item,time\n"a,b",2,{T}\nc,2,{T}\n')
    assert read_interactions(path)["user_id"].to_list() == ["a,b", "c"]


def test_compressed_text_reads(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in EVENTS))
    assert rows(read_interactions(path)) == SORTED


def test_scan_log_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "u.data", "".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in EVENTS))
    frame = scan_log(path)
    assert isinstance(frame, pl.LazyFrame)
    assert rows(frame.collect()) == EVENTS


def test_a_log_of_many_rows_keeps_their_order(tmp_path: Path) -> None:
    n = 200_000
    path = tmp_path / "log.csv"
    pl.DataFrame({"user": [1] * n, "item": range(n), "time": [T] * n}).write_csv(path)
    assert read_interactions(path)["item_id"].to_list() == list(range(n))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)),
        min_size=1,
        max_size=40,
    )
)
def test_sorting_is_stable(events: list[tuple[int, int, int]]) -> None:
    frame = pl.DataFrame(
        [(*event, place) for place, event in enumerate(events)],
        schema=["user_id", "item_id", "timestamp", "place"],
        orient="row",
    )
    expected = sorted(frame.rows(), key=lambda row: (row[0], row[2]))  # Python's sort is stable
    assert read_interactions(frame).rows() == expected


@pytest.mark.parametrize("header", ["userId,user_id,item_id,timestamp", "user_id,userId,item_id,timestamp"])
def test_the_usual_name_wins_over_another_spelling_of_it(tmp_path: Path, header: str) -> None:
    log = tmp_path / "log.csv"
    place = header.split(",").index("user_id")
    fields = ["9", "9"]
    fields[place] = "1"
    log.write_text(f"{header}\n{','.join(fields)},5,1600000000\n")
    assert read_interactions(log)["user_id"].to_list() == [1]
