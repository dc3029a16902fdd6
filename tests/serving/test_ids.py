"""Ids are of the log's kind, however they were spelled."""

import pytest

from recsys.events.store import RawId
from recsys.serving.ids import as_logged


@pytest.mark.parametrize(
    ("raw", "is_int", "found"),
    [
        (7, True, 7),
        ("7", True, 7),
        ("-7", True, -7),
        ("0", True, 0),
        (7, False, "7"),
        ("7", False, "7"),
        ("07", True, "07"),
        ("-0", True, "-0"),
        (" 7", True, " 7"),
        ("7\n", True, "7\n"),
        ("٣", True, "٣"),
        ("1_0", True, "1_0"),
        ("9223372036854775807", True, 2**63 - 1),
        ("9223372036854775808", True, "9223372036854775808"),
        ("anna", True, "anna"),
    ],
)
def test_ids_are_of_the_kind_of_the_log(raw: RawId, is_int: bool, found: RawId) -> None:
    assert as_logged(raw, is_int) == found
    assert type(as_logged(raw, is_int)) is type(found)
