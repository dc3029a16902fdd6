"""Columns, weights and targets of events lie in a prepared dataset as arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.event_columns import EventColumn
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.event_values import OWN_RANGES, QUANTILES
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import summary
from recsys.errors import ArgumentError, DataError, RecsysError

START_S = 1_000_000_000


def log_of(**columns: list[Any]) -> pl.DataFrame:
    """Two users of five events each, an event an hour, with further columns."""
    base = {
        "user_id": ["u1"] * 5 + ["u2"] * 5,
        "item_id": list("abcda") + list("bcade"),
        "timestamp": [START_S + 3_600 * n for n in range(10)],
    }
    return pl.DataFrame({**base, **columns})


ACTION = ["view", "buy", " view ", None, "return", "buy", "view", "", "buy", "view"]
DEVICE = ["phone", "tv", "phone", "tv", "tv", "phone", "phone", "tv", "phone", "watch"]
# Training events are the first three of each user.
FULL = log_of(action=ACTION, device=DEVICE, w=[1.0, 2.0, 0.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0])


def test_words_are_coded_by_training_events(tmp_path: Path) -> None:
    store = prepare(FULL, tmp_path / "out", event_columns="action,device", request_columns=["device"])
    columns = store.event_columns
    assert columns is not None
    assert [c.name for c in columns.events] == ["action", "device"]
    assert [c.values for c in columns.events] == [("buy", "view"), ("phone", "tv")]
    assert store.event_codes is not None
    assert store.request_codes is not None
    # Missing, empty, and what no training event has ("return", "watch"), are 0.
    assert store.event_codes[:, 0].tolist() == [2, 1, 2, 0, 0, 1, 2, 0, 1, 2]
    assert store.event_codes[:, 1].tolist() == [1, 2, 1, 2, 2, 1, 1, 2, 1, 0]
    assert store.request_codes[:, 0].tolist() == store.event_codes[:, 1].tolist()
    assert columns.events[0].codes(["view", " buy", None, "no", 3]).tolist() == [2, 1, 0, 0, 0]
    assert "event columns: action (2 values), device (2 values)" in summary(store)
    assert "request columns: device (2 values)" in summary(store)


def test_arrays_open_with_numpy_alone_and_follow_the_sorted_events(tmp_path: Path) -> None:
    shuffled = FULL.sample(fraction=1, shuffle=True, seed=1)
    options: dict[str, Any] = {"event_columns": "action", "weight_column": "w", "target_where": "action=buy"}
    store = prepare(FULL, tmp_path / "a", **options)
    other = prepare(shuffled, tmp_path / "b", **options)
    assert other.fingerprint == store.fingerprint
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    for name, dtype in (("event_codes", "int32"), ("event_weights", "float32"), ("event_targets", "bool")):
        assert np.load(tmp_path / "a" / f"{name}.npy").dtype == dtype
        assert f"{name}.npy" in meta["files"]
    assert store.event_weights is not None
    assert store.event_weights.tolist() == [1, 2, 0, 1.5, 1, 1, 1, 1, 1, 3]
    assert store.event_targets is not None
    assert np.flatnonzero(store.event_targets).tolist() == [1, 5, 8]
    assert "events to predict: 3 of 10; the others are context" in summary(store)
    assert meta["options"]["target_where"] == "action=buy"


def test_a_log_without_columns_is_prepared_as_before(tmp_path: Path) -> None:
    plain = prepare(FULL, tmp_path / "plain")
    assert plain.event_columns is None
    for name in ("event_codes", "request_codes", "event_weights", "event_targets"):
        assert getattr(plain, name) is None
    meta = json.loads((tmp_path / "plain" / "meta.json").read_text())
    assert not {"event_columns", "weight_column", "target_where"} & {*meta, *meta["options"], *meta["ids"]}
    assert plain.fingerprint != prepare(FULL, tmp_path / "columns", event_columns="action").fingerprint


def test_the_local_hour_is_kept_by_nothing_but_times(tmp_path: Path) -> None:
    options: dict[str, Any] = {"event_columns": "local_hour", "request_columns": ["local_hour"]}
    store = prepare(FULL, tmp_path / "out", **options, time_zone="-05:00")
    assert store.fingerprint == prepare(FULL, tmp_path / "plain", time_zone="-05:00").fingerprint
    assert store.event_columns is None
    assert "event columns: local_hour (24 hours)" in summary(store)
    assert store.meta["options"]["request_columns"] == ["local_hour"]
    both = prepare(FULL, tmp_path / "both", event_columns="local_hour,action", time_zone="-05:00")
    assert both.event_columns is not None
    assert [column.name for column in both.event_columns.events] == ["action"]
    assert "event columns: action (2 values), local_hour (24 hours)" in summary(both)
    with pytest.raises(
        ArgumentError, match="request_columns= names local_hour, the hour of local times: pass time"
    ):
        prepare(FULL, tmp_path / "no", request_columns="local_hour")
    shards = prepare(FULL, tmp_path / "shards", event_columns="local_hour", time_zone="-05:00", shards=1)
    assert shards.n_events == 10


def test_few_numbers_are_values_and_many_are_cut_at_quantiles(tmp_path: Path) -> None:
    few = log_of(stars=["5", "3", "4", "1", "5", "3", "3", "4", "", "9"])
    column = prepare(few, tmp_path / "few", event_columns="stars").event_columns
    assert column is not None
    assert column.events[0].edges == (4.0, 5.0)
    # Below the least and above the most that trained belongs to the end ranges.
    assert column.events[0].codes([1, 3, 4, 4.5, 5, 99, None, "x", float("nan")]).tolist() == [
        *(1, 1, 2, 2, 3, 3, 0, 0, 0)
    ]
    n = 40 * (OWN_RANGES + 10)
    rng = np.random.default_rng(0)
    many = pl.DataFrame(
        {
            "user_id": np.arange(n) // 40,
            "item_id": rng.integers(0, 50, n),
            "timestamp": START_S + np.arange(n),
            "dwell": rng.exponential(30.0, n),
        }
    )
    store = prepare(many, tmp_path / "many", event_columns="dwell")
    assert store.event_columns is not None
    assert store.event_columns.events[0].n_codes == 1 + QUANTILES
    training = np.arange(n) % 40 < 38
    assert store.event_codes is not None
    share = np.bincount(store.event_codes[training, 0], minlength=1 + QUANTILES) / training.sum()
    assert share[0] == 0
    assert np.abs(share[1:] - 1 / QUANTILES).max() < 0.002


def test_leave_one_out_tests_the_last_target(tmp_path: Path) -> None:
    #            u1: view buy view buy view buy view    u2: view view buy buy
    actions = ["view", "buy", "view", "buy", "view", "buy", "view", "view", "view", "buy", "buy"]
    frame = pl.DataFrame(
        {
            "user_id": [1] * 7 + [2] * 4,
            "item_id": [*range(7), *range(4)],
            "timestamp": [START_S + n for n in range(11)],
            "action": actions,
        }
    )
    store = prepare(frame, tmp_path / "out", target_where="action=buy")
    assert store.valid_start.tolist() == [3, 11]  # a view goes with the target before it
    assert store.test_start.tolist() == [5, 11]  # two targets are too few to be tested
    assert store.offsets.tolist() == [0, 7, 11]
    assert store.event_targets is not None
    assert np.flatnonzero(store.event_targets).tolist() == [1, 3, 5, 9, 10]
    both = prepare(frame, tmp_path / "both", target_where="action=buy,view")
    assert both.valid_start.tolist() == [5, 9]


def test_numbers_meet_a_condition_however_they_are_written(tmp_path: Path) -> None:
    frame = log_of(stars=[5.0, 3.0, 4.0, 1.0, 5.0, 3.0, 5.0, 4.0, None, 2.0])
    store = prepare(frame, tmp_path / "out", target_where="stars=5,4")
    assert store.event_targets is not None
    assert np.flatnonzero(store.event_targets).tolist() == [0, 2, 4, 6, 7]


STARS = [5.0, 3.0, 4.0, 1.0, None, 3.0, 5.0, 4.0, float("nan"), 2.0]


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("stars>=4", [0, 2, 6, 7]),
        ("stars >= 3.5 ", [0, 2, 6, 7]),
        ("stars<=3", [1, 3, 5, 9]),
        ("stars>3", [0, 2, 6, 7]),
        ("stars<2", [3]),
        ("stars!=5,4", [1, 3, 5, 9]),
        ("action!=view", [1, 4, 5, 8]),
        ("action!=view,return", [1, 5, 8]),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_conditions_compare_and_what_is_missing_meets_none(
    condition: str, met: list[int], as_text: bool, tmp_path: Path
) -> None:
    stars = [None if n is None else str(n) for n in STARS] if as_text else STARS
    frame = log_of(stars=stars, action=ACTION)
    if as_text:
        frame = frame.with_columns(stars=pl.col("stars").replace("nan", ""))
    store = prepare(frame, tmp_path / "out", target_where=condition)
    assert store.event_targets is not None
    assert np.flatnonzero(store.event_targets).tolist() == met
    assert store.meta["options"]["target_where"] == condition


def test_a_text_log_and_parts_of_a_log_carry_columns(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    FULL.write_csv(path)
    store = prepare(path, tmp_path / "text", event_columns="action,w", request_columns="device")
    frame = prepare(FULL, tmp_path / "frame", event_columns="action,w", request_columns="device")
    assert store.event_codes is not None
    assert frame.event_codes is not None
    assert store.event_codes.tolist() == frame.event_codes.tolist()
    assert store.event_columns is not None
    assert store.event_columns.events[1].edges == (1.0, 2.0)
    places = pl.Series(range(10))
    train, test = FULL.filter(places % 5 < 4), FULL.filter(places % 5 == 4)
    parts = prepare(train, tmp_path / "parts", test=test, event_columns="action", weight_column="w")
    assert parts.event_codes is not None
    assert parts.event_weights is not None
    # e never trains, so its event is gone.
    assert parts.event_codes[:, 0].tolist() == [2, 1, 2, 0, 0, 1, 2, 0, 1]
    assert parts.event_weights.tolist() == [1, 2, 0, 1.5, 1, 1, 1, 1, 1]


def refused(tmp_path: Path, frame: pl.DataFrame = FULL, **options: Any) -> str:
    with pytest.raises((ArgumentError, DataError)) as caught:
        prepare(frame, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"event_columns": "acton"}, "no column 'acton'"),
        ({"event_columns": "action,"}, "event_columns='action,' has an empty name"),
        ({"event_columns": "action,action"}, "names 'action' twice"),
        ({"event_columns": 3}, "event_columns=3 names no columns"),
        (
            {"event_columns": "item_id"},
            "column 'item_id' is both item and column 'item_id' of events; leave it out there, or name"
            " another column with item_column=",
        ),
        ({"request_columns": "place"}, "no column 'place'"),
        ({"weight_column": "weight"}, "no column 'weight'"),
        ({"weight_column": " "}, "weight_column='' names no column"),
        ({"weight_column": "action"}, "holds 'view' among its weights: give a number of 0 or more"),
        ({"target_where": "action"}, "target_where='action' is no condition"),
        ({"target_where": "action="}, "is no condition"),
        ({"target_where": "=buy"}, "is no condition"),
        ({"target_where": ">=4"}, "is no condition"),
        ({"target_where": "w!4"}, "is no condition"),
        ({"target_where": "w>="}, "write it as column=value, for example action=purchase"),
        ({"target_where": "w>=many"}, ">= compares with one number, for example w>=4"),
        ({"target_where": "w<1,2"}, "< compares with one number, for example w<4"),
        ({"target_where": "action<>buy"}, "is no condition: write != for <>"),
        ({"target_where": "w>=nan"}, ">= compares with one number"),
        ({"target_where": "w>3"}, "column 'w' has no number > 3; they reach from 0 to 3"),
        ({"target_where": "action!=purchase"}, "never holds 'purchase'; it holds buy, return, view"),
        ({"target_where": "action>=4"}, "holds 'view', which is no number, and >= compares numbers"),
        ({"target_where": "action=purchase"}, "never holds 'purchase'; it holds buy, return, view"),
        (
            {"target_where": "action=return", "split": "ratio", "test_fraction": 0.2},
            "no training event meets target_where='action=return'",
        ),
        ({"target_where": "kind=buy"}, "no column 'kind'"),
        ({"event_columns": "action", "shards": 2}, "event_columns= is kept by one dataset alone"),
    ],
)
def test_what_cannot_be_kept_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, **options)


def test_columns_of_bad_values_are_refused(tmp_path: Path) -> None:
    ones = [1.0] * 10
    assert "holds -1.0 among its weights" in refused(tmp_path, log_of(w=[*ones[:9], -1.0]), weight_column="w")
    assert "holds nothing among its weights" in refused(
        tmp_path, log_of(w=[*ones[:9], None]), weight_column="w"
    )
    late = [0.0, 0.0, 0.0, 1.0, 1.0] * 2
    assert "all weights of training events are 0" in refused(tmp_path, log_of(w=late), weight_column="w")
    never = [None, None, None, "x", "y"] * 2
    assert "column 'a' has no value at a training event" in refused(
        tmp_path, log_of(a=never), event_columns="a"
    )
    assert "infinite number" in refused(tmp_path, log_of(a=[*ones[:9], float("inf")]), event_columns="a")
    assert "neither text nor numbers" in refused(tmp_path, log_of(a=[[1, 2]] * 10), event_columns="a")
    n = 65_540
    ids = pl.DataFrame(
        {
            "user_id": [1] * n,
            "item_id": [1] * n,
            "timestamp": range(START_S, START_S + n),
            "session": [f"s{i}" for i in range(n)],
        }
    )
    assert "holds 65,540 distinct values, and 65,535 are the most" in refused(
        tmp_path, ids, event_columns="session"
    )


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("event_codes", np.full((10, 2), 3, np.int32), "a code of 'action' lies outside [0, 3)"),
        ("event_codes", np.zeros((10, 1), np.int32), "holds 1 columns, 2 belong there"),
        ("event_codes", np.zeros((9, 2), np.int32), "holds 9 events, 10 belong there"),
        ("event_weights", np.full(10, np.nan, np.float32), "a weight is no number of 0 or more"),
        ("event_targets", np.zeros(10, np.int8), "holds int8"),
        ("meta", None, "its event columns were edited"),
    ],
)
def test_damage_is_named(name: str, array: Any, said: str, tmp_path: Path) -> None:
    from recsys.datasets.prepared.writer import describe_file

    prepare(
        FULL,
        tmp_path / "out",
        event_columns="action,device",
        weight_column="w",
        target_where="device=phone,tv,watch",
    )
    path = tmp_path / "out" / "meta.json"
    meta = json.loads(path.read_text())
    if array is None:
        meta["event_columns"]["events"][0]["values"][0] = "sell"
    else:
        np.save(tmp_path / "out" / f"{name}.npy", array)
        meta["files"][f"{name}.npy"] = describe_file(tmp_path / "out" / f"{name}.npy")
    path.write_text(json.dumps(meta))
    with pytest.raises(RecsysError, match="prepare the log again") as caught:
        SequenceStore.open(tmp_path / "out")
    assert said in str(caught.value)


def test_a_logs_booleans_are_those_of_callers(tmp_path: Path) -> None:
    paid = [True, False, True, None, True, False, True, True, False, True]
    columns = prepare(log_of(paid=paid), tmp_path / "out", request_columns="paid").event_columns
    assert columns is not None
    assert columns.requests[0].values == ("false", "true")
    assert columns.requests[0].codes([True, False, "true", np.True_, None]).tolist() == [2, 1, 2, 2, 0]


@pytest.mark.parametrize("options", [{"weight_column": "w"}, {"target_where": "w=1"}, {"event_columns": "w"}])
def test_lists_are_neither_text_nor_numbers(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'w' holds List\(Int64\), neither text nor numbers"):
        prepare(log_of(w=[[1]] * 10), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_no_number_that_can_be_is_missing() -> None:
    column = EventColumn(name="price", edges=(1.0, 2.0))
    assert column.codes([0, "1", 5, 10**400, "x", None, float("nan")]).tolist() == [1, 2, 3, 0, 0, 0, 0]
