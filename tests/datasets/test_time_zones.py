"""Local time follows the zone, daylight saving included."""

import zoneinfo
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.times.local_times import local_times
from recsys.datasets.times.time_zones import check_time_zone, local_to_unix, utc_offsets
from recsys.errors import ArgumentError, DataError


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"])
def test_offsets_are_those_of_the_zone_at_each_moment(zone: str) -> None:
    moments = np.random.default_rng(0).integers(1_200_000_000, 1_700_000_000, 500)
    expected = [
        datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(zone)).utcoffset().total_seconds()  # type: ignore[union-attr]
        for moment in moments
    ]
    found = utc_offsets(moments, zone)
    assert found.tolist() == expected
    assert found.dtype == np.int32


def test_the_change_to_summer_time_is_met_to_the_second() -> None:
    change = 1_710_054_000  # 2024-03-10T07:00:00Z, New York
    assert utc_offsets(np.array([change - 1, change]), "America/New_York").tolist() == [-18_000, -14_400]


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("+05:30", 19_800), ("-0300", -10_800), ("UTC+2", 7_200), ("+00:00", 0), ("-14:00", -50_400)],
)
def test_fixed_offsets_are_understood(zone: str, expected: int) -> None:
    assert utc_offsets(np.array([0, 10**9]), zone).tolist() == [expected] * 2


@pytest.mark.parametrize("zone", ["Mars/Olympus", "+15:00", "5", "", "../etc/passwd", "+1:75"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ArgumentError, match="time_zone="):
        check_time_zone(zone)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_column_gives_each_event_its_zone(suffix: str, tmp_path: Path) -> None:
    winter, summer = 1_704_110_400, 1_719_835_200
    zones = ["America/New_York", "America/New_York", "+05:30", "-240"]
    frame = pl.DataFrame(
        {"user": [1, 1, 2, 3], "item": [1, 2, 1, 2], "time": [winter, summer, winter, winter], "zone": zones}
    )
    path = tmp_path / f"log.{suffix}"
    if suffix == "csv":
        frame.write_csv(path)
    elif suffix == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    store = prepare(path, tmp_path / "out", time_zone="column:zone")
    assert store.utc_offsets is not None
    assert store.utc_offsets.tolist() == [-18_000, -14_400, 19_800, -14_400]
    local = local_times(store)
    assert local is not None
    assert store.timestamps is not None
    assert (local - store.timestamps).tolist() == store.utc_offsets.tolist()
    with pytest.raises(DataError, match="column 'zones'"):
        prepare(path, tmp_path / "other", time_zone="column:zones")


def test_zones_stay_with_their_events_when_others_are_dropped(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user": [2, 1, 3, 2, 1],
            "item": [1, 1, 9, 2, 2],
            "time": [5, 4, 3, 2, 1],
            "m": [60, 120, 600, 180, 240],
        }
    )
    store = prepare(frame, tmp_path / "out", time_zone="column:m", min_events=2)
    assert store.utc_offsets is not None
    assert store.utc_offsets.tolist() == [m * 60 for m in (240, 120, 180, 60)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([-5, 1], "which are hours"),
        ([-18_000, 3_600], "holds -18000, but its numbers are minutes"),
        (["Mars/Olympus", "+01:00"], "holds 'Mars/Olympus'"),
        ([60, None], "events without a zone"),
    ],
)
def test_a_column_that_names_no_zone_is_refused(values: list[object], message: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": [1, 2], "zone": values})
    with pytest.raises((ArgumentError, DataError), match=message) as error:
        prepare(frame, tmp_path / "out", time_zone="column:zone")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_local_times_lead_back_to_the_moment() -> None:
    moments = np.array([1_710_053_999, 1_710_054_000, 1_700_000_000])
    local = moments + utc_offsets(moments, "America/New_York").astype(np.int64)
    assert local_to_unix(local, "America/New_York").tolist() == moments.tolist()
