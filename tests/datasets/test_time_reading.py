"""Times in the wild: dates as numbers are refused, unambiguous dates are read, a format reads the rest."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.reading.numeric_dates import looks_like
from recsys.datasets.sources.readers import read_interactions
from recsys.errors import ArgumentError, DataError


def log_of(path: Path, times: list[str], header: str = "user_id,item_id,timestamp") -> Path:
    lines = [f"1,{place},{time}" for place, time in enumerate(times)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("times", "kind", "remedy"),
    [
        (["20220408", "20220501"], "YYYYMMDD", "time_format='%Y%m%d'"),
        (["2022040813", "2022050123"], "YYYYMMDDHH", "time_format='%Y%m%d%H'"),
        (["202204081359", "202205012300"], "YYYYMMDDHHMM", "time_format='%Y%m%d%H%M'"),
        (["20220408135900", "20220501230000"], "YYYYMMDDHHMMSS", "time_format='%Y%m%d%H%M%S'"),
        (["202204", "202212"], "YYYYMM", "write whole dates"),
        (["829", "1111"], "months and days (MMDD)", "time_unit='s'"),
        (["44000.5", "44001.25"], "days since 1900", "(value - 25569) * 86400"),
        (["2011", "2014"], "years", "write whole dates"),
    ],
)
def test_numbers_that_are_dates_are_refused(tmp_path: Path, times: list[str], kind: str, remedy: str) -> None:
    with pytest.raises(DataError) as caught:
        read_interactions(log_of(tmp_path / "log.csv", times))
    message = str(caught.value)
    assert f"column 'timestamp', row 1: '{times[0]}' looks like {kind}" in message
    assert remedy in message
    numbers = pl.Series([float(time) for time in times])
    with pytest.raises(DataError, match="looks like"):
        read_interactions(pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": numbers}))


@pytest.mark.parametrize(
    ("least", "most"),
    [
        (0, 20), (1, 1231), (100, 300), (1_000, 5_000), (881_250_949, 893_286_638), (20_221_399, 20_229_999),
        (1_600_000_000, 1_700_000_000), (2_019_136_000, 2_019_200_000),
    ],
)  # fmt: skip
def test_seconds_are_not_taken_for_dates(least: int, most: int) -> None:
    assert looks_like(least, most) is None


@pytest.mark.parametrize(
    ("time_format", "text", "expected"),
    [
        ("%Y%m%d", "20220408", seconds(2022, 4, 8)),
        ("%Y%m%d%H", "2022040813", seconds(2022, 4, 8, 13)),
        ("%Y%m%d%H%M%S", "20220408135900", seconds(2022, 4, 8, 13, 59)),
        ("%m/%d/%Y %I:%M:%S %p", "11/1/2019 9:01:20 PM", seconds(2019, 11, 1, 21, 1, 20)),
        ("%d/%m/%Y", "01/11/2019", seconds(2019, 11, 1)),
        ("%d %B %Y %H Uhr", "1 November 2019 17 Uhr", seconds(2019, 11, 1, 17)),
    ],
)
def test_a_stated_format_is_read(tmp_path: Path, time_format: str, text: str, expected: int) -> None:
    path = log_of(tmp_path / "log.csv", [text, text])
    assert read_interactions(path, time_format=time_format)["timestamp"].to_list() == [expected] * 2
    if text.isdecimal():
        frame = pl.DataFrame({"user_id": [1], "item_id": [1], "timestamp": [int(text)]})
        assert read_interactions(frame, time_format=time_format)["timestamp"].to_list() == [expected]


def test_a_format_that_does_not_fit_names_the_row(tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.csv", ["20220408", "20221340"])
    with pytest.raises(DataError, match="row 2: '20221340' is not a time; it does not match '%Y%m%d'"):
        read_interactions(path, time_format="%Y%m%d")
    with pytest.raises(ArgumentError, match="is no format"):
        read_interactions(path, time_format="%Y-%m-%d %M")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-10-01 00:01:01 UTC", seconds(2019, 10, 1, 0, 1, 1)),
        ("2019-10-01 00:01:01.5 UTC", seconds(2019, 10, 1, 0, 1, 1)),
        ("2014-12-01 01", seconds(2014, 12, 1, 1)),
        ("20191101T010203Z", seconds(2019, 11, 1, 1, 2, 3)),
        ("20191101T010203", seconds(2019, 11, 1, 1, 2, 3)),
        ("2019/11/01 01:02:03", seconds(2019, 11, 1, 1, 2, 3)),
        ("2019-11-01 01:02:03 PM", seconds(2019, 11, 1, 13, 2, 3)),
        ("31.12.2019 23:59", seconds(2019, 12, 31, 23, 59)),
        ("10/Oct/2000:13:55:36 -0700", seconds(2000, 10, 10, 20, 55, 36)),
        ("Tue, 03 Apr 2012 18:00:09 +0000", seconds(2012, 4, 3, 18, 0, 9)),
    ],
)
def test_dates_that_say_one_thing_are_read(tmp_path: Path, text: str, expected: int) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(f"user_id\titem_id\ttimestamp\n1\t2\t{text}\n", encoding="utf-8")
    assert read_interactions(path)["timestamp"].to_list() == [expected]


@pytest.mark.parametrize("rest", ["", " 9:01:20 AM", " 09:01"])
def test_month_or_day_first_is_settled_by_the_column_or_asked_for(tmp_path: Path, rest: str) -> None:
    late = 9 * 3_600 + (80 if "20" in rest else 60) if rest else 0
    american = log_of(tmp_path / "us.csv", [f"11/1/2019{rest}", f"11/13/2019{rest}"])
    european = log_of(tmp_path / "eu.csv", [f"11/1/2019{rest}", f"13/1/2019{rest}"])
    november, january = seconds(2019, 11, 1) + late, seconds(2019, 1, 11) + late
    assert read_interactions(american)["timestamp"][0] == november
    assert read_interactions(european)["timestamp"][0] == january
    either = log_of(tmp_path / "both.csv", [f"11/1/2019{rest}", f"12/1/2019{rest}"])
    with pytest.raises(DataError, match="may be month/day or day/month; pass time_format='%m/%d/%Y"):
        read_interactions(either)


@pytest.mark.parametrize("typed", [False, True])
def test_placeholders_among_times_are_refused(tmp_path: Path, typed: bool) -> None:
    times = [1_600_000_000, 0, 1_600_000_001, 0]
    frame = pl.DataFrame({"user_id": [1] * 4, "item_id": [1] * 4, "timestamp": times})
    if typed:
        frame = frame.with_columns(pl.from_epoch("timestamp"))
    with pytest.raises(
        DataError, match=r"row 2: .* stands for a missing time \(in 2 rows; others reach 2020-09"
    ):
        read_interactions(frame)


def test_small_numbers_are_read_and_told(tmp_path: Path) -> None:
    path = log_of(tmp_path / "log.csv", ["5,x", "7,y"], header="user_id,item_id,timestamp,event_date")
    told: list[str] = []
    assert read_interactions(path, notify=told.append)["timestamp"].to_list() == [5, 7]
    assert len(told) == 1
    assert "all times lie in 1970" in told[0]
    assert "event_date" in told[0]
    told.clear()
    read_interactions(path, time_unit="s", notify=told.append)
    assert not told


def test_another_column_that_may_be_the_time_is_named(tmp_path: Path) -> None:
    path = log_of(
        tmp_path / "log.csv", ["20220408,1649300000000"], header="user_id,item_id,date,time_of_click"
    )
    with pytest.raises(DataError, match=r"other columns that may be the time: time_of_click"):
        read_interactions(path)
    path = log_of(tmp_path / "log.csv", ["20220408,1649300000000"], header="user_id,item_id,date,time_ms")
    assert read_interactions(path, time_unit="ms")["timestamp"].to_list() == [1_649_300_000]
