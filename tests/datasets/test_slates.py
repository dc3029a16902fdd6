"""What was shown lies in a prepared dataset; slates of which nothing was taken too."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.slates import SLATE_ARRAYS
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing import slates as preparing
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.preparing.summary import summary
from recsys.datasets.synthetic.slates import slate_log
from recsys.errors import ArgumentError, DataError, RecsysError

# (user, item, slate): of u1 the last two events are held out, as are those of u2.
ROWS: list[tuple[str, str | None, list[str] | None]] = [
    ("u1", None, ["b"]),  # before any event: nothing precedes it
    ("u1", "a", ["a", "b", "c"]),
    ("u1", None, ["c", "b", "c"]),
    ("u1", None, ["d", "zz"]),
    ("u1", "b", None),
    ("u1", "c", ["a", "zz", "a"]),
    ("u1", None, ["zz"]),  # nothing that the log knows
    ("u1", "d", []),
    ("u1", "a", ["b", "a"]),
    ("u1", None, ["a"]),  # behind the last event
    ("u2", "b", ["b", "d"]),
    ("u2", "d", ["d"]),
    ("u2", "a", ["a", "c"]),
    ("u2", "b", ["b"]),
    ("u3", None, ["a", "b"]),  # a user without an event
]


def log_of(**further: list[Any]) -> pl.DataFrame:
    users, items, slates = zip(*ROWS, strict=True)
    return pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "timestamp": [1_000_000_000 + 60 * n for n in range(len(ROWS))],
            "shown": pl.Series(slates, dtype=pl.List(pl.String)),
            **further,
        }
    )


def lists(store: SequenceStore, name: str) -> list[str]:
    """The slates as words."""
    assert store.slates is not None
    items, offsets = getattr(store.slates, name), getattr(store.slates, f"{name}_offsets")
    words = np.array(list("abcd"))[items]
    return ["".join(words[a:b]) for a, b in itertools.pairwise(offsets)]


def test_slates_belong_to_events(tmp_path: Path) -> None:
    store = prepare(log_of(), tmp_path / "data", shown_column="shown")
    assert (store.n_users, store.n_items, store.n_events) == (2, 4, 9)
    # Each item once, in the order of the catalog; "zz" is none.
    assert lists(store, "shown") == ["abc", "", "a", "", "ab", "bd", "d", "ac", "b"]
    assert lists(store, "passed") == ["bc", "d"]
    assert store.slates is not None
    assert store.slates.passed_before.tolist() == [1, 1]
    assert store.slates.passed_weights is None
    assert store.meta["counts"]["duplicate_events"] == 0
    told = "slates: of 7 events, and 2 of which nothing was taken; 3 items in them that the log does not have"
    assert f"{told} are left out" in summary(store)
    for name in SLATE_ARRAYS:
        if name != "passed_weights":
            assert np.load(store.path / f"{name}.npy").dtype == SLATE_ARRAYS[name]
            assert f"{name}.npy" in store.meta["files"]
    assert json.loads((store.path / "meta.json").read_text())["options"]["shown_column"] == "shown"


def test_text_is_as_good_as_lists(tmp_path: Path) -> None:
    frame = log_of()
    wanted = prepare(frame, tmp_path / "lists", shown_column="shown").fingerprint
    bars = frame.with_columns(pl.col("shown").list.join(" | "))
    bars.write_csv(tmp_path / "log.csv")
    assert prepare(tmp_path / "log.csv", tmp_path / "csv", shown_column="shown").fingerprint == wanted
    frame.write_ndjson(tmp_path / "log.jsonl")
    assert prepare(tmp_path / "log.jsonl", tmp_path / "json", shown_column="shown").fingerprint == wanted
    for name, quote in (("json", '"'), ("python", "'")):
        written = pl.col("shown").list.eval(quote + pl.element() + quote).list.join(", ")
        table = frame.with_columns("[" + written + "]")
        assert prepare(table, tmp_path / f"{name}-text", shown_column="shown").fingerprint == wanted
    shuffled = frame.sample(fraction=1, shuffle=True, seed=2)
    assert prepare(shuffled, tmp_path / "shuffled", shown_column="shown").fingerprint == wanted


@pytest.mark.parametrize("kind", [pl.Int64, pl.UInt8, pl.Float64, pl.String])
def test_ids_are_numbers_too(tmp_path: Path, kind: Any) -> None:
    numbers = {"a": 1, "b": 2, "c": 30, "d": 4, "zz": 99}
    items = [None if item is None else numbers[item] for _, item, _ in ROWS]
    slates = [None if slate is None else [numbers[item] for item in slate] for _, _, slate in ROWS]
    frame = log_of().with_columns(
        pl.Series("item_id", items, dtype=pl.Int64).cast(kind),
        pl.Series("shown", slates, dtype=pl.List(pl.Int64)),
    )
    store = prepare(frame, tmp_path / "data", shown_column="shown")
    assert store.slates is not None
    assert store.slates.shown_offsets.tolist() == [0, 3, 3, 4, 4, 6, 8, 9, 11, 12]
    # In order of ids 1, 2, 4, 30 are a, b, d, c.
    assert store.slates.shown[:3].tolist() == [0, 1, 3]
    assert store.slates.shown[6:8].tolist() == [1, 2]


def test_a_log_of_order_alone(tmp_path: Path) -> None:
    store = prepare(log_of().drop("timestamp"), tmp_path / "data", shown_column="shown", time_unit="order")
    assert lists(store, "shown") == ["abc", "", "a", "", "ab", "bd", "d", "ac", "b"]
    assert lists(store, "passed") == ["bc", "d"]


def test_slates_of_dropped_events_go_and_weights_stay(tmp_path: Path) -> None:
    weights = [float(n) for n in range(len(ROWS))]
    store = prepare(
        log_of(w=weights), tmp_path / "data", shown_column="shown", weight_column="w", min_item_events=2
    )
    # "c" occurs once, so its event is gone and is no item; what was passed over before "b" stays there.
    assert store.n_items == 3
    assert store.slates is not None
    words = np.array(["a", "b", "d"])[store.slates.passed].tolist()
    assert (words, store.slates.passed_offsets.tolist()) == (["b", "d"], [0, 1, 2])
    assert store.slates.passed_before.tolist() == [1, 1]
    assert store.slates.passed_weights is not None
    assert store.slates.passed_weights.tolist() == [2.0, 3.0]


def test_slates_follow_other_numbers_and_plain_folders_have_none(tmp_path: Path) -> None:
    store = prepare(log_of(), tmp_path / "data", shown_column="shown")
    other = store.renumbered(np.array([5, 4, 3, 2], dtype=np.int32), 6)
    assert store.slates is not None
    assert other.slates is not None
    assert other.slates.shown.tolist() == (5 - store.slates.shown).tolist()
    assert other.slates.passed.tolist() == (5 - store.slates.passed).tolist()
    plain = prepare(log_of().drop_nulls("item_id"), tmp_path / "plain")
    assert plain.slates is None
    assert "shown_column" not in plain.meta["options"]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("shown", [0] * 11 + [9], r"shown.npy: an item lies outside \[0, 4\)"),
        ("shown_offsets", [0] * 9 + [11], "shown_offsets.npy: does not rise from 0 to 12"),
        ("passed_before", [1, 9], r"passed_before.npy: does not rise within \[0, 9\)"),
        ("passed_before", [2, 1], r"passed_before.npy: does not rise within \[0, 9\)"),
    ],
)
def test_damaged_slates_are_refused(tmp_path: Path, name: str, values: list[int], message: str) -> None:
    store = prepare(log_of(), tmp_path / "data", shown_column="shown")
    np.save(store.path / f"{name}.npy", np.array(values, dtype=SLATE_ARRAYS[name]))
    with pytest.raises(DataError, match=message):
        SequenceStore.open(store.path, verify=False)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"shown_column": " "}, "shown_column='' names no column"),
        ({}, {"shown_column": "slate"}, "no column 'slate'"),
        ({}, {"shown_column": "shown", "shards": 2}, "shown_column= is kept by one dataset alone"),
        ({"shown": [1.5] * 15}, {"shown_column": "shown"}, "column 'shown' has type Float64; give lists of"),
        (
            {"shown": [[True]] * 15},
            {"shown_column": "shown"},
            "column 'shown' holds lists of Boolean; give lists of item ids",
        ),
        ({"shown": ["q|r"] * 15}, {"shown_column": "shown"}, "nothing that was shown at an event is an item"),
        ({"shown": [None] * 15}, {"shown_column": "shown"}, "column 'item_id', row 1: the id is missing"),
        ({"shown": ["[]"] * 15}, {"shown_column": "shown"}, r"row 1: the id is missing; fill or drop"),
        ({"shown": [[None]] * 15}, {"shown_column": "shown"}, "column 'item_id', row 1: the id is missing"),
        ({"item_id": [None] * 15}, {"shown_column": "shown"}, "column 'item_id' is empty"),
        ({"item_id": [""] * 15}, {"shown_column": "shown"}, "no row has an item; nothing was taken"),
        ({}, {}, "column 'item_id', row 1: the id is missing"),
    ],
)
def test_what_is_no_slate_is_refused(
    tmp_path: Path, change: dict[str, list[Any]], options: dict[str, Any], message: str
) -> None:
    frame = log_of().with_columns(**{name: pl.Series(values) for name, values in change.items()})
    if "item_id" in change and change["item_id"][0] == "":
        frame = frame.with_columns(pl.lit("a").alias("shown"))
    with pytest.raises(RecsysError, match=message) as caught:
        prepare(frame, tmp_path / "data", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists()


def test_long_slates_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "MOST_SHOWN", 2)
    with pytest.raises(
        DataError, match="a slate holds 3 items, and 2 are the most: keep those that were seen"
    ):
        prepare(log_of(), tmp_path / "data", shown_column="shown")


def test_the_made_log_has_the_shares_it_states() -> None:
    log = slate_log(2_000, 20, nothing=1.0, seed=3)
    assert log.equals(slate_log(2_000, 20, nothing=1.0, seed=3))
    shown = np.array(log["shown"].to_list())
    # Drawn without replacement, so a little below ten times.
    assert 8 < (shown < 10).sum() / (shown >= 10).sum() < 10
    both = log.filter(pl.col("shown").list.eval(pl.element() >= 10).list.sum() == 2, pl.col("item_id") >= 0)
    # Two of either kind: 2 of 3 that are taken are wanted twice as much.
    assert (both["item_id"] >= 10).mean() == pytest.approx(2 / 3, abs=0.03)
    alike = log.filter(pl.col("shown").list.max() < 10)
    assert alike["item_id"].is_null().mean() == pytest.approx(1 / 5, abs=0.02)
    with pytest.raises(ArgumentError, match="slate"):
        slate_log(10, 6, slate=4)
