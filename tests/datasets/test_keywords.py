"""Options stand in one place: dataclasses, keywords, signatures and commands agree."""

import inspect
import json
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.datasets.preparing.options import (
    OPTIONS,
    FilterKeywords,
    FilterOptions,
    PrepareKeywords,
    PrepareOptions,
)
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.reading.options import ReadKeywords, ReadOptions
from recsys.datasets.sources.readers import read_interactions, scan_log
from recsys.datasets.splitting.options import SplitKeywords, SplitOptions
from recsys.errors import ArgumentError, DataError

# What data prepared by version 1 hold for their options, key by key.
FIRST = {
    "split": "leave-one-out",
    "min_user_events": 0,
    "min_item_events": 0,
    "valid_fraction": None,
    "test_fraction": None,
    "valid_time": None,
    "test_time": None,
    "time_zone": None,
    "items_sha256": None,
    "format": None,
    "user_column": None,
    "item_column": None,
    "timestamp_column": None,
    "time_unit": None,
    "separator": None,
    "header": None,
}


@pytest.mark.parametrize(
    ("kind", "keywords"),
    [(ReadOptions, ReadKeywords), (SplitOptions, SplitKeywords), (FilterOptions, FilterKeywords)],
)
def test_keywords_are_the_fields(kind: type[Any], keywords: Any) -> None:
    hints = typing.get_type_hints(kind)
    assert typing.get_type_hints(keywords) == {one.name: hints[one.name] for one in fields(kind)}
    assert all(one.metadata["help"].endswith((".", "...")) for one in fields(kind))


@pytest.mark.parametrize(
    ("function", "kinds"),
    [(prepare, OPTIONS), (read_interactions, (ReadOptions,)), (scan_log, (ReadOptions,))],
)
def test_functions_show_every_option(function: Any, kinds: tuple[type[Any], ...]) -> None:
    parameters = inspect.signature(function).parameters
    for kind in kinds:
        for one in fields(kind):
            assert parameters[one.name].default == one.default
    assert "options" not in parameters


@pytest.mark.parametrize(
    ("keywords", "recorded"),
    [
        ({}, {}),
        ({"min_events": 5}, {"min_user_events": 5, "min_item_events": 5}),
        ({"min_events": 5, "min_user_events": 0}, {"min_item_events": 5}),
        ({"split": "temporal"}, {"split": "temporal", "valid_fraction": 0.1, "test_fraction": 0.1}),
        (
            {"split": "temporal", "valid_time": 3, "test_time": 4},
            {"split": "temporal", "valid_time": 3, "test_time": 4},
        ),
        ({"time_unit": "ms", "header": False}, {"time_unit": "ms", "header": False}),
    ],
)
def test_what_the_first_version_recorded_compares_equal(
    keywords: PrepareKeywords, recorded: dict[str, Any]
) -> None:
    record = PrepareOptions.of(keywords).record()
    assert record == FIRST | recorded
    assert list(record) == list(FIRST)


def test_later_options_are_recorded_where_they_are_asked_for() -> None:
    record = PrepareOptions.of({"split": "last-n", "test_events": 2, "time_format": "%Y%m%d"}).record()
    assert record == FIRST | {
        "split": "last-n",
        "valid_events": 1,
        "test_events": 2,
        "time_format": "%Y%m%d",
    }


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"colour": "red"}, "unexpected keyword 'colour': known are split, valid_fraction"),
        ({"min_event": 5}, "unexpected keyword 'min_event': did you mean min_events=?"),
        ({"min_events": "5"}, "min_events='5' is of the wrong type: give a whole number"),
        ({"min_events": True}, "min_events=True is of the wrong type"),
        ({"min_events": 1.5}, "min_events=1.5 is of the wrong type"),
        ({"split": None}, "split=None is of the wrong type: give text"),
        ({"header": "yes"}, "header='yes' is of the wrong type: give True or False"),
        ({"split": "temporal", "valid_fraction": "0.1"}, "valid_fraction='0.1' is of the wrong type"),
        ({"time_format": ""}, "time_format='' is no format"),
        ({"time_unit": "h"}, "choose one of s, ms"),
        ({"time_unit": "s", "time_format": "%Y"}, "a date has no unit"),
        ({"separator": ""}, "separates nothing"),
        ({"encoding": "klingon"}, "encoding='klingon' is not known"),
        ({"min_item_events": -2}, "min_item_events=-2 is negative"),
    ],
)
def test_options_out_of_range_are_refused(keywords: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        PrepareOptions.of(keywords)


def test_numbers_of_numpy_are_plain_numbers() -> None:
    record = PrepareOptions.of({"min_events": np.int64(5)}).record()  # type: ignore[typeddict-item]
    assert record == FIRST | {"min_user_events": 5, "min_item_events": 5}
    assert json.dumps(record)
    share: Any = np.float32(0.25)
    assert json.dumps(PrepareOptions.of({"split": "ratio", "valid_fraction": share}).record())


@pytest.mark.parametrize("path", ["", "a\0b.csv", "a" * 5_000])
def test_what_can_be_no_path_is_one_line(tmp_path: Path, path: str) -> None:
    with pytest.raises(DataError):
        read_interactions(path)
    with pytest.raises(DataError):
        prepare(path, tmp_path / "out")
    with pytest.raises(ArgumentError, match="names no folder"):
        prepare({"user_id": [1], "item_id": [1], "timestamp": [5]}, "")
