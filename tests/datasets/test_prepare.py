"""Preparing a log gives the same dataset every time, or nothing at all."""

import json
import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_table, item_vocabulary, user_vocabulary
from recsys.datasets.prepared.writer import write_array, write_parquet
from recsys.datasets.preparing import prepare as module
from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.synthetic.logs import markov_log
from recsys.errors import ArgumentError, DataError

DAY_S = 86_400


def ids_of(store: SequenceStore) -> list[tuple[object, ...]]:
    """The log as the store holds it, in its own order."""
    users = np.repeat(np.arange(store.n_users), np.diff(store.offsets))
    assert store.timestamps is not None
    return list(
        zip(
            user_vocabulary(store).decode(users).to_list(),
            item_vocabulary(store).decode(store.items).to_list(),
            store.timestamps.tolist(),
            strict=True,
        )
    )


@given(
    events=st.lists(
        st.tuples(st.integers(-3, 3), st.sampled_from("abcd"), st.integers(0, 4)), min_size=1, max_size=30
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_holds_the_log_sorted_with_ties_in_file_order(
    events: list[tuple[int, str, int]], tmp_path: Path
) -> None:
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    store = prepare(frame, tmp_path / "out", overwrite=True)
    assert ids_of(store) == sorted(events, key=lambda event: (event[0], event[2]))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_gives_what_its_frame_gives(log: pl.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        log.write_parquet(path)
    elif suffix == "csv":
        log.write_csv(path)
    else:
        log.write_ndjson(path)
    from_file, from_frame = prepare(path, tmp_path / "a"), prepare(log, tmp_path / "b")
    assert from_file.fingerprint == from_frame.fingerprint
    assert sorted(os.listdir(from_file.path)) == sorted([*from_file.meta["files"], "meta.json"])


def test_meta_says_what_the_figures_stand_on(log: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "shop.csv"
    pl.concat([log, log.head(3)]).write_csv(path)
    meta = prepare(path, tmp_path / "out").meta
    assert meta["name"] == "shop"
    assert meta["source"]["file"] == "shop.csv"
    assert meta["source"]["rows"] == len(log) + 3
    assert len(meta["source"]["sha256"]) == 64
    assert meta["counts"]["duplicate_events"] == len(log) + 3 - log.n_unique()
    assert meta["counts"]["events"] == len(log) + 3
    assert meta["counts"]["density"] == pytest.approx((len(log) + 3) / (12 * 9))
    lengths = pl.concat([log, log.head(3)]).group_by("user_id").len()["len"]
    assert meta["lengths"] == {
        "min": lengths.min(),
        "median": lengths.median(),
        "mean": pytest.approx(lengths.mean()),
        "max": lengths.max(),
    }
    assert meta["time"] == {
        "first": log["timestamp"].min(),
        "last": log["timestamp"].max(),
        "granularity": "hour",
        "midnight_share": (log["timestamp"].to_numpy() % 86_400 == 0).mean(),
        "time_zone": None,
    }


def test_the_tie_share_is_that_of_the_log(log: pl.DataFrame, tmp_path: Path) -> None:
    log = log.with_columns(pl.col("timestamp") // 20_000 * 20_000)
    last_two = (
        log.sort(["user_id", "timestamp"], maintain_order=True)
        .group_by("user_id")
        .agg(pl.col("timestamp").tail(2).n_unique().alias("n"), pl.len())
        .filter(pl.col("len") >= 3)
    )
    share = float(np.mean(last_two["n"].to_numpy() == 1))
    assert 0 < share < 1
    assert prepare(log, tmp_path / "out").meta["tie_share"] == pytest.approx(share)


def test_order_alone_gives_a_store_without_times(log: pl.DataFrame, tmp_path: Path) -> None:
    frame = log.select("user_id", "item_id", pos=pl.int_range(pl.len()).reverse())
    store = prepare(frame, tmp_path / "out", timestamp_column="pos", time_unit="order")
    assert store.timestamps is None
    assert store.meta["tie_share"] is None
    assert store.meta["time"] is None
    reversed_items = frame.reverse().sort("user_id", maintain_order=True)["item_id"].to_list()
    assert item_vocabulary(store).decode(store.items).to_list() == reversed_items


def test_time_options_need_times(log: pl.DataFrame, tmp_path: Path) -> None:
    frame = log.select("user_id", "item_id")
    for options in ({"split": "temporal"}, {"time_zone": "UTC"}):
        with pytest.raises(ArgumentError, match="needs times"):
            prepare(frame, tmp_path / "out", time_unit="order", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_time_zone_gives_each_event_its_offset(tmp_path: Path) -> None:
    times = [1_710_054_000 - 1, 1_710_054_000]
    frame = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "timestamp": times})
    store = prepare(frame, tmp_path / "out", time_zone="America/New_York")
    assert store.utc_offsets is not None
    assert store.utc_offsets.tolist() == [-18_000, -14_400]
    assert store.meta["time"]["time_zone"] == "America/New_York"


def test_min_events_keeps_the_core_and_says_what_fell(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"user_id": [0, 0, 1, 1, 2, 2], "item_id": [0, 1, 0, 0, 1, 9], "timestamp": range(6)}
    )
    store = prepare(frame, tmp_path / "out", min_events=2)
    assert ids_of(store) == [(1, 0, 2), (1, 0, 3)]
    assert store.meta["removed"] == {
        "before": {"users": 3, "items": 3, "events": 6},
        "rounds": 4,
        "events": 4,
        "users": 2,
        "items": 2,
    }
    users_only = prepare(frame, tmp_path / "users", min_user_events=2, min_item_events=0)
    assert users_only.n_events == 6


def test_a_filter_that_leaves_nothing_is_refused(log: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no event is left"):
        prepare(log, tmp_path / "out", min_events=1_000)
    with pytest.raises(ArgumentError, match="min_events=-1"):
        prepare(log, tmp_path / "out", min_events=-1)
    assert list(tmp_path.iterdir()) == []


def test_the_temporal_split_drops_items_that_never_train(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2, 3],
            "item_id": ["a", "b", "new", "a", "b", "new"],
            "timestamp": [10, 20, 30, 10, 40, 40],
        }
    )
    store = prepare(frame, tmp_path / "out", split="temporal", valid_time=20, test_time=30)
    # Item b has no event before 20, so it falls as well as "new", and user 3 with it.
    assert item_vocabulary(store).ids.to_list() == ["a"]
    assert user_vocabulary(store).ids.to_list() == [1, 2]
    split = store.meta["split"]
    assert (split["cold_events"], split["cold_items"], split["cold_users"]) == (4, 2, 1)


def test_the_temporal_split_cuts_all_users_alike(tmp_path: Path) -> None:
    log = markov_log(200, 30, seed=1).frame
    store = prepare(log, tmp_path / "out", split="temporal", valid_fraction=0.2, test_fraction=0.1)
    assert store.timestamps is not None
    split = store.meta["split"]
    for user in range(store.n_users):
        times = store.timestamps[store.offsets[user] : store.offsets[user + 1]]
        place = store.offsets[user]
        assert (times[: store.valid_start[user] - place] < split["valid_time"]).all()
        assert (times[store.valid_start[user] - place :] >= split["valid_time"]).all()
        assert (times[: store.test_start[user] - place] < split["test_time"]).all()
        assert (times[store.test_start[user] - place :] >= split["test_time"]).all()
    assert store.item_counts().min() >= 1
    assert split["train_events"] / store.n_events == pytest.approx(0.7, abs=0.02)
    assert split["test_events"] / store.n_events == pytest.approx(0.1, abs=0.02)


def test_item_titles_stand_beside_their_items(log: pl.DataFrame, tmp_path: Path) -> None:
    names = pl.DataFrame({"item_id": ["item-001", "item-000"], "title": ["One", "Zero"]})
    names.write_csv(tmp_path / "items.csv")
    store = prepare(log, tmp_path / "out", items=tmp_path / "items.csv")
    assert item_table(store)["title"].to_list()[:3] == ["Zero", "One", None]
    assert store.meta["counts"]["items_with_metadata"] == 2
    with pytest.raises(DataError, match="nowhere"):
        prepare(log, tmp_path / "other", items=tmp_path / "nowhere.csv")


def test_the_same_again_changes_nothing(log: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    log.write_parquet(path)
    first = prepare(path, tmp_path / "out", min_events=2)
    before = {file.name: file.stat().st_mtime_ns for file in first.path.iterdir()}
    again = prepare(path, tmp_path / "out", min_events=2)
    assert again.fingerprint == first.fingerprint
    assert {file.name: file.stat().st_mtime_ns for file in again.path.iterdir()} == before


def test_another_log_or_option_needs_overwrite(log: pl.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(log, out).fingerprint
    for other, options in ((log.head(60), {}), (log, {"min_events": 2})):
        with pytest.raises(DataError, match="pass overwrite=True"):
            prepare(other, out, **options)  # type: ignore[arg-type]
        assert SequenceStore.open(out).fingerprint == first
    replaced = prepare(log.head(60), out, overwrite=True)
    assert replaced.n_events == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_what_is_not_ours_is_never_replaced(log: pl.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    with pytest.raises(DataError, match="is not a prepared dataset"):
        prepare(log, folder, overwrite=True)
    assert (folder / "chapter.txt").read_text() == "mine"
    with pytest.raises(DataError, match="is no folder"):
        prepare(log, folder / "chapter.txt", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert prepare(log, tmp_path / "empty").n_events == len(log)


def test_a_damaged_dataset_is_prepared_anew_only_on_request(log: pl.DataFrame, tmp_path: Path) -> None:
    store = prepare(log, tmp_path / "out")
    (store.path / "offsets.npy").unlink()
    with pytest.raises(DataError, match="the file is missing"):
        prepare(log, tmp_path / "out")
    assert prepare(log, tmp_path / "out", overwrite=True).fingerprint == store.fingerprint


@pytest.mark.parametrize("step", ["load_events", "sort_events", "k_core", "write_dataset", "event_arrays"])
@pytest.mark.parametrize("full", [True, False])
def test_a_failure_in_the_middle_leaves_nothing(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, full: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device") if full else KeyboardInterrupt

    path = tmp_path / "log.csv"
    log.write_csv(path)
    old = prepare(log.head(50), tmp_path / "old")
    monkeypatch.setattr(module, step, fail)
    for out, overwrite in (("new", False), ("old", True)):
        with pytest.raises(DataError if full else KeyboardInterrupt) as caught:
            prepare(path, tmp_path / out, time_zone="UTC", overwrite=overwrite)
        if full:
            assert str(caught.value) == f"{tmp_path / out}: the disk is full; free some space and run again"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.csv", "old"]
    assert SequenceStore.open(tmp_path / "old").fingerprint == old.fingerprint


def test_a_full_disk_while_an_array_is_written_leaves_nothing(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recsys.datasets.prepared.writer.write_parquet", fill)
    with pytest.raises(DataError, match="the disk is full"):
        prepare(log, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("write", [write_array, write_parquet])
def test_writers_tell_a_full_disk_from_other_failures(write: Any) -> None:
    values: Any = np.arange(100_000)
    with pytest.raises(OSError, match="No space left") as caught:
        write(values if write is write_array else pl.DataFrame({"a": values}), Path("/dev/full"))
    assert caught.value.errno == 28


def test_a_rename_that_fails_puts_the_old_dataset_back(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prepare(log.head(50), tmp_path / "out")
    rename = Path.rename

    def fail_into_place(self: Path, target: Path) -> Path:
        if self.name.startswith(".out.") and target == tmp_path / "out":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with pytest.raises(DataError, match="cannot be written"):
        prepare(log, tmp_path / "out", overwrite=True)
    assert SequenceStore.open(tmp_path / "out").fingerprint == old.fingerprint
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'ml-100k'"):
        prepare("ml100k", tmp_path / "out")


def test_unknown_options_are_refused_before_any_work(log: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="split='random'"):
        prepare(log, tmp_path / "out", split="random")
    with pytest.raises(ArgumentError, match="time_zone='Nowhere'"):
        prepare(log, tmp_path / "out", time_zone="Nowhere")
    with pytest.raises(ArgumentError, match="valid_time"):
        prepare(log, tmp_path / "out", split="temporal", valid_time=5)


def test_meta_is_plain_json(store: SequenceStore) -> None:
    text = (store.path / "meta.json").read_text()
    assert json.loads(text) == store.meta
    assert "NaN" not in text


@pytest.mark.parametrize(
    ("step", "shift", "granularity"),
    [(1, 0, "second"), (60, 9, "minute"), (3_600, 0, "hour"), (DAY_S, 18_000, "day"), (7 * DAY_S, 0, "week")],
)
def test_granularity_is_the_coarsest_step_of_all_times(
    tmp_path: Path, step: int, shift: int, granularity: str
) -> None:
    times = [10**9 + shift + step * n for n in (0, 1, 5)]
    frame = pl.DataFrame({"user_id": [1] * 3, "item_id": [1, 2, 3], "timestamp": times})
    assert prepare(frame, tmp_path / "out").meta["time"]["granularity"] == granularity
