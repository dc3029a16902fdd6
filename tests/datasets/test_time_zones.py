"""Local time follows the zone, daylight saving included."""

import zoneinfo
from datetime import datetime

import numpy as np
import pytest

from recsys.datasets.time_zones import check_time_zone, utc_offsets
from recsys.errors import ArgumentError


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
