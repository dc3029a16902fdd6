"""Splits by name: every one keeps its promise, takes its own options only, and can be added to."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from numpy.typing import NDArray

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary, user_vocabulary
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.splitting import registry
from recsys.datasets.splitting.options import SplitOptions
from recsys.datasets.splitting.parts import LEFT_OUT, TEST, TRAIN, VALID, Division, SortedLog
from recsys.datasets.splitting.registry import divide, register_split, split_config, split_names
from recsys.errors import ArgumentError, DataError

T = 1_600_000_000
LENGTHS = st.lists(st.integers(1, 12), min_size=5, max_size=12)


def log_of(lengths: list[int]) -> SortedLog:
    return SortedLog(offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))


def parts(log: SortedLog, **options: Any) -> list[list[int]]:
    """Each user's parts."""
    name, config = split_config(SplitOptions(**options))
    found: NDArray[np.int8] = divide(log, name, config).parts
    return [list(found[a:b]) for a, b in zip(log.offsets[:-1], log.offsets[1:], strict=True)]


@given(LENGTHS)
def test_the_last_event_alone_is_leave_one_out(lengths: list[int]) -> None:
    log = log_of(lengths)
    assert parts(log, split="last-n") == parts(log)
    assert parts(log, split="last-n", valid_events=1, test_events=1) == parts(log, split="leave-one-out")


def test_last_n_takes_so_many_of_each_end() -> None:
    assert parts(log_of([6, 5, 1]), split="last-n", valid_events=2, test_events=3) == [
        [TRAIN] * 1 + [VALID] * 2 + [TEST] * 3,
        [TRAIN] * 5,
        [TRAIN],
    ]
    assert parts(log_of([3]), split="last-n", valid_events=0, test_events=2) == [[TRAIN, TEST, TEST]]


def test_ratio_rounds_down_and_gives_each_part_one() -> None:
    found = parts(log_of([100, 20, 3, 2]), split="ratio", valid_fraction=0.29, test_fraction=0.1)
    assert [[row.count(part) for part in (TRAIN, VALID, TEST)] for row in found] == [
        [61, 29, 10],
        [13, 5, 2],
        [1, 1, 1],
        [2, 0, 0],
    ]
    assert all(row == sorted(row) for row in found)
    assert parts(log_of([10]), split="ratio", valid_fraction=0.0) == [[TRAIN] * 9 + [TEST]]


@given(LENGTHS, st.integers(2, 5))
def test_every_user_is_held_out_in_one_fold(lengths: list[int], folds: int) -> None:
    log = log_of(lengths)
    held = []
    for fold in range(1, folds + 1):
        for user, row in enumerate(parts(log, split="k-fold", folds=folds, fold=fold)):
            if row[-1] == TEST:
                held.append(user)
                assert row == [VALID] * (len(row) - 1) + [TEST]
            else:
                assert row == [TRAIN] * (len(row) - 1) + [VALID if len(row) >= 3 else TRAIN]
    assert sorted(held) == list(range(len(lengths)))


@given(LENGTHS, st.integers(2, 4))
def test_folds_by_events_end_with_leave_one_out_and_never_see_what_follows(
    lengths: list[int], folds: int
) -> None:
    log = log_of([*lengths, 12])
    assert parts(log, split="k-fold", folds=folds, fold=folds, fold_by="events") == parts(log)
    for fold in range(1, folds):
        for row in parts(log, split="k-fold", folds=folds, fold=fold, fold_by="events"):
            kept = [part for part in row if part != LEFT_OUT]
            assert len(row) - len(kept) == min(folds - fold, len(row))
            assert kept == parts(log_of([len(kept)]))[0] if kept else True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"valid_fraction": 2.0}, "valid_fraction=2.0 means nothing with split='leave-one-out'"),
        ({"valid_fraction": 0.1}, "choose the split ratio or temporal"),
        ({"split": "temporal", "folds": 3}, "choose the split k-fold"),
        ({"split": "temporal", "valid_fraction": 0.0}, "both must be above 0"),
        ({"split": "temporal", "test_fraction": 0.0}, "both must be above 0"),
        ({"split": "ratio", "test_fraction": 0.0}, "the second above 0"),
        ({"split": "ratio", "valid_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
        ({"split": "last-n", "test_events": 0}, "at least 0 and 1"),
        ({"split": "k-fold", "fold": 0}, "a fold of 1 to folds"),
        ({"split": "k-fold", "folds": 1}, "at least 2 folds"),
        ({"split": "k-fold", "fold_by": "items"}, "choose users or events"),
        ({"split": "column"}, "needs split_column"),
        ({"split": "files"}, "needs valid or test"),
        ({"split": "temporal", "test": "x.csv"}, "choose the split files"),
        ({"split": "leave-one-outt"}, "did you mean 'leave-one-out'"),
        ({"split": "random"}, "choose column, files, k-fold, last-n, leave-one-out, ratio, temporal"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        split_config(SplitOptions(**options))


def test_a_new_split_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    split_names()
    monkeypatch.setattr(registry, "_CONFIGS", dict(registry._CONFIGS))
    monkeypatch.setattr(registry, "_DIVIDES", dict(registry._DIVIDES))

    @dataclass(frozen=True, kw_only=True)
    class Even:
        test_events: int = 2

    @register_split("even", Even)
    def even(log: SortedLog, config: Even) -> Division:
        return Division((np.arange(log.offsets[-1]) % config.test_events * TEST).astype(np.int8))

    assert "even" in split_names()
    assert parts(log_of([4]), split="even") == [[TRAIN, TEST, TRAIN, TEST]]
    with pytest.raises(ArgumentError, match="registered already"):
        register_split("even", Even)(even)

    @dataclass(frozen=True, kw_only=True)
    class Strange:
        colour: str = "red"

    with pytest.raises(ArgumentError, match="colour is no option of a split"):
        register_split("strange", Strange)(even)  # type: ignore[arg-type]


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "part"], orient="row")


ROWS = [
    *((user, item, T + item, "train") for user in (1, 2) for item in (10, 20, 30)),
    (1, 20, T + 50, "validation"),
    (2, 10, T + 51, "VAL"),
    (1, 10, T + 60, "test"),
    (1, 99, T + 61, "test"),
    (3, 30, T + 62, "test"),
]


def segments(store: SequenceStore) -> dict[Any, list[list[Any]]]:
    """Raw items of each user's three parts."""
    names, users = item_vocabulary(store), user_vocabulary(store)
    found = {}
    for user in range(store.n_users):
        cuts = (store.offsets[user], store.valid_start[user], store.test_start[user], store.offsets[user + 1])
        rows = [names.decode(store.items[a:b]).to_list() for a, b in itertools.pairwise(cuts)]
        found[users.decode([user]).item()] = rows
    return found


EXPECTED = {1: [[10, 20, 30], [20], [10]], 2: [[10, 20, 30], [10], []], 3: [[], [], [30]]}


def test_a_column_states_the_parts_and_cold_items_are_counted(tmp_path: Path) -> None:
    store = prepare(
        frame_of(ROWS).sample(fraction=1, shuffle=True, seed=1), tmp_path / "out", split_column="part"
    )
    assert segments(store) == EXPECTED
    assert store.meta["split"]["name"] == "column"
    assert store.meta["split"]["cold_events"] == store.meta["split"]["cold_items"] == 1
    assert store.meta["options"]["split_column"] == "part"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_own_files_are_the_parts(tmp_path: Path, suffix: str) -> None:
    paths = {}
    for part in ("train", "val", "test"):
        rows = frame_of(ROWS).filter(pl.col("part").str.to_lowercase().str.starts_with(part)).drop("part")
        paths[part] = tmp_path / f"{part}.{suffix}"
        rows.write_csv(paths[part]) if suffix == "csv" else rows.write_parquet(paths[part])
    own: dict[str, Any] = {"valid": paths["val"], "test": str(paths["test"])}
    store = prepare(paths["train"], tmp_path / "out", **own)
    assert segments(store) == EXPECTED
    assert store.meta["source"]["rows"] == len(ROWS)
    assert prepare(paths["train"], tmp_path / "out", **own).fingerprint == store.fingerprint
    with pytest.raises(DataError, match="with other options"):
        prepare(paths["train"], tmp_path / "out", test=paths["test"])


def test_ids_of_own_files_are_of_one_kind(tmp_path: Path) -> None:
    train = pl.DataFrame({"user_id": [1, 1], "item_id": [5, 6], "timestamp": [T, T + 1]})
    test = pl.DataFrame({"user_id": ["1", "new"], "item_id": ["6", "5"], "timestamp": [T + 2, T + 3]})
    store = prepare(train, tmp_path / "out", test=test)
    assert segments(store) == {"1": [[5, 6], [], [6]], "new": [[], [], [5]]}


def test_a_bad_row_of_an_own_file_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"user_id,item_id,timestamp\n1,2,{T}\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text(f"user_id,item_id,timestamp\n1,2,{T}\n,2,{T}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"b.csv: column 'user_id', row 2: the id is missing"):
        prepare(tmp_path / "a.csv", tmp_path / "out", test=tmp_path / "b.csv")


def test_the_log_itself_is_no_test_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"user_id,item_id,timestamp\n1,2,{T}\n", encoding="utf-8")
    with pytest.raises(DataError, match="is the training log itself; pass test= another file"):
        prepare(path, tmp_path / "out", test=path)


def test_a_split_column_has_no_other_role(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="'item_id' is both item and part; leave it out there, or name another column with item_column=",
    ):
        prepare(frame_of(ROWS), tmp_path / "out", split_column="item_id")


def test_parts_that_contradict_time_are_refused_unless_order_is_asked_for(tmp_path: Path) -> None:
    rows = [(1, 5, T + 9, "train"), (1, 6, T + 10, "train"), (1, 5, T, "test")]
    with pytest.raises(DataError, match="1 users have validation or test events that lie before"):
        prepare(frame_of(rows), tmp_path / "out", split_column="part")
    store = prepare(frame_of(rows), tmp_path / "out", split_column="part", time_unit="order")
    assert segments(store) == {1: [[5, 6], [], [5]]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "holdout"], "holds 'holdout': write train, valid or test"),
        (["train", None], "without a part"),
        (["test", "test"], "no training event"),
    ],
)
def test_words_that_name_no_part_are_refused(tmp_path: Path, words: list[str | None], message: str) -> None:
    frame = frame_of([(1, item, T + item, word) for item, word in enumerate(words)])
    with pytest.raises(DataError, match=message):
        prepare(frame, tmp_path / "out", split_column="part")
    assert not (tmp_path / "out").exists()


def test_events_after_a_fold_are_gone_and_counted(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": [1] * 6, "item_id": [1, 2, 3, 1, 2, 9], "timestamp": range(T, T + 6)})
    store = prepare(frame, tmp_path / "out", split="k-fold", folds=3, fold=1, fold_by="events")
    # Item 3 would validate and never trains; 2 and 9 follow the tested event.
    assert segments(store) == {1: [[1, 2], [], [1]]}
    assert store.meta["split"]["cold_events"] == 1
    assert store.meta["split"]["later_events_left_out"] == 2


@pytest.mark.parametrize("part", ["valid", "test"])
def test_an_own_file_whose_items_never_train_is_refused(tmp_path: Path, part: str) -> None:
    log = pl.DataFrame({"user_id": [1, 1, 2], "item_id": ["x1", "x2", "x1"], "timestamp": [T, T + 1, T]})
    late = log.with_columns(pl.col("timestamp") + 100)
    other: dict[str, Any] = {part: late.with_columns(pl.col("item_id").str.strip_prefix("x"))}
    with pytest.raises(DataError, match=r"none of the 3 \w+ events has an item .* for example '1': write"):
        prepare(log, tmp_path / "out", **other)
    assert not (tmp_path / "out").exists()
    some: dict[str, Any] = {part: pl.concat([late.head(1), *other.values()])}
    meta = prepare(log, tmp_path / "out", **some).meta["split"]
    assert (meta[f"{part}_events"], meta["cold_events"]) == (1, 3)
