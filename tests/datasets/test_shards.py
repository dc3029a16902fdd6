"""A log in shards is the log: the same sequences and facts, in however many pieces it is read."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.link import link_or_copy
from recsys.datasets.prepared.sharded_store import ShardedStore
from recsys.datasets.prepared.store import SequenceStore, is_prepared
from recsys.datasets.prepared.user_hash import shards_of
from recsys.datasets.prepared.vocabulary import item_table, item_vocabulary, user_vocabulary
from recsys.datasets.preparing import sharded
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import ArgumentError, DataError
from tests.datasets.shard_logs import START_S, sharded_store, tied_log

FACTS = ("name", "source", "counts", "removed", "split", "tie_share", "lengths", "time")


def in_id_order(store: SequenceStore) -> dict[str, np.ndarray]:
    """Arrays with the users in the order of their ids, marks as places within a user's events."""
    ids = user_vocabulary(store).decode(np.arange(store.n_users))
    order = ids.arg_sort().to_numpy()
    starts, ends = store.offsets[:-1][order], store.offsets[1:][order]
    rows = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends, strict=True)])
    arrays = {name: getattr(store, name) for name in ("items", "timestamps", "utc_offsets")}
    return {
        "ids": ids.gather(order).to_numpy(),
        "lengths": ends - starts,
        "valid": store.valid_start[order] - starts,
        "test": store.test_start[order] - starts,
        **{name: array[rows] for name, array in arrays.items() if array is not None},
    }


def assert_same_data(shards: SequenceStore, plain: SequenceStore) -> None:
    found, wanted = in_id_order(shards), in_id_order(plain)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype
    assert item_table(shards).equals(item_table(plain))
    np.testing.assert_array_equal(shards.item_counts(), plain.item_counts())
    for fact in FACTS:
        assert shards.meta[fact] == plain.meta[fact], fact


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


PREPARATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "core": {"min_user_events": 8, "min_item_events": 5},
    "temporal": {"split": "temporal", "valid_fraction": 0.3, "test_fraction": 0.3},
    "temporal at moments": {"split": "temporal", "valid_time": START_S + 3_600, "test_time": START_S + 7_200},
    "temporal core": {"split": "temporal", "valid_fraction": 0.2, "test_fraction": 0.4, "min_events": 6},
    "ratio": {"split": "ratio"},
    "last": {"split": "last-n", "test_events": 2},
    "folds": {"split": "k-fold", "fold_by": "events", "folds": 4},
    "zone": {"time_zone": "Asia/Tokyo"},
    "zones": {"time_zone": "column:zone"},
    "order": {"time_unit": "order", "timestamp_column": "timestamp"},
}


@pytest.mark.parametrize("options", PREPARATIONS.values(), ids=PREPARATIONS.keys())
@pytest.mark.parametrize("text", [False, True], ids=["numbers", "text"])
def test_shards_hold_what_one_store_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], text: bool
) -> None:
    monkeypatch.setattr(sharded, "PART_ROWS", 100)
    log = tied_log(text=text)
    path = tmp_path / "log.parquet"
    log.write_parquet(path, row_group_size=70)
    plain = prepare(path, tmp_path / "plain", **options)
    store = sharded_store(path, tmp_path / "shards", **options)
    assert_same_data(store, plain)
    if options == {}:
        assert plain.meta["counts"]["tied_events"] > len(log) / 2


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "frame", "parts"])
def test_every_kind_of_log_gives_the_same_shards(tmp_path: Path, suffix: str) -> None:
    log = tied_log()
    given: Any = tmp_path / f"log.{suffix}"
    if suffix == "csv":
        log.write_csv(given)
    elif suffix == "jsonl":
        log.write_ndjson(given)
    elif suffix == "parts":
        given.mkdir()
        for number in range(3):
            log.slice(number * 240, 240).write_parquet(given / f"{number}.parquet")
    else:
        given = log
    assert sharded_store(given, tmp_path / "a").fingerprint == sharded_store(log, tmp_path / "b").fingerprint


def test_an_order_of_rows_is_kept_over_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "PART_ROWS", 64)
    log = tied_log().select("user_id", "item_id")
    log.write_parquet(tmp_path / "log.parquet", row_group_size=50)
    options: dict[str, Any] = {"time_unit": "order"}
    plain = prepare(tmp_path / "log.parquet", tmp_path / "plain", **options)
    assert_same_data(sharded_store(tmp_path / "log.parquet", tmp_path / "shards", **options), plain)


def test_stated_parts_and_cold_items(tmp_path: Path) -> None:
    log = tied_log().with_columns(
        pl.when(pl.col("timestamp") >= START_S + 3 * 3_600)
        .then(pl.lit("test"))
        .otherwise(pl.lit("train"))
        .alias("part"),
        pl.when((pl.col("timestamp") >= START_S + 3 * 3_600) & (pl.col("item_id") < "item-003"))
        .then(pl.lit("new"))
        .otherwise(pl.col("item_id"))
        .alias("item_id"),
    )
    for keep_cold in (False, True):
        options: dict[str, Any] = {"split_column": "part", "keep_cold": keep_cold}
        plain = prepare(log, tmp_path / f"plain{keep_cold}", **options)
        store = sharded_store(log, tmp_path / f"shards{keep_cold}", **options)
        assert_same_data(store, plain)
    is_test = pl.col("part") == "test"
    wrong = log.with_columns(pl.when(is_test).then(pl.lit("other")).otherwise("item_id").alias("item_id"))
    messages = []
    for shards in (None, 4):
        with pytest.raises(DataError, match="none of the .* test events has an item") as caught:
            prepare(wrong, tmp_path / "wrong", split_column="part", shards=shards)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_features_are_one_table_for_all_shards(tmp_path: Path) -> None:
    items = pl.DataFrame(
        {
            "item_id": [f"item-{value:03d}" for value in range(40)],
            "title": [f"Title {value}" for value in range(40)],
            "genres": [["a", "b", "c"][value % 3] for value in range(40)],
            "vector": [[float(value), 1.0] for value in range(40)],
        }
    )
    options: dict[str, Any] = {
        "items": items,
        "item_tags": "genres",
        "item_vectors": "vector",
        "keep_cold": True,
    }
    plain = prepare(tied_log(), tmp_path / "plain", **options)
    store = sharded_store(tied_log(), tmp_path / "shards", **options)
    assert_same_data(store, plain)
    assert store.item_features is not None
    assert plain.item_features is not None
    np.testing.assert_array_equal(store.item_features.vectors, plain.item_features.vectors)
    np.testing.assert_array_equal(store.item_features.tags, plain.item_features.tags)
    for name in ("items.parquet", "item_vectors.npy", "tags.parquet"):
        inodes = {(store.path / shard.name / name).stat().st_ino for shard in store.shards}
        assert inodes == {(store.path / name).stat().st_ino}


def test_each_shard_opens_by_itself(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    users = []
    for number, entry in enumerate(store.shards):
        shard = SequenceStore.open(store.path / entry.name, verify=True)
        assert not isinstance(shard, ShardedStore)
        assert (shard.n_users, shard.n_events, shard.fingerprint) == (
            entry.users,
            entry.events,
            entry.fingerprint,
        )
        for fact in ("most_trained", "untrained_users"):
            assert getattr(shard, fact) == getattr(entry, fact)
        assert shard.has_tests == (entry.tested_after_history > 0)
        assert shard.has_validation == (entry.valid_users > 0)
        assert shard.n_items == store.n_items == len(item_vocabulary(shard))
        own = user_vocabulary(shard).ids
        assert (shards_of(own, 4) == number).all()
        users += own.to_list()
    assert users == user_vocabulary(store).ids.to_list()
    assert sum(shard.train_events for shard in store.shards) == store.item_counts().sum()


def test_opening_touches_no_array_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded_store(tied_log(), tmp_path / "out")

    def refuse(self: ShardedStore, number: int) -> SequenceStore:
        raise AssertionError(f"shard {number} was opened")

    monkeypatch.setattr(ShardedStore, "shard", refuse)
    store = SequenceStore.open(tmp_path / "out", verify=False)
    assert store.n_events == 720
    assert store.item_counts().sum() == store.meta["split"]["train_events"]
    assert store.most_trained > 3
    assert store.has_validation
    assert store.has_tests
    assert store.has_times


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_same_bytes_with_any_number_of_threads(tmp_path: Path, threads: str) -> None:
    tied_log(users=300).write_parquet(tmp_path / "log.parquet")
    prepare(tmp_path / "log.parquet", tmp_path / "here", shards=5, min_events=3)
    code = (
        "from recsys.datasets.preparing.prepare import prepare\n"
        f"prepare({str(tmp_path / 'log.parquet')!r}, {str(tmp_path / 'there')!r}, shards=5, min_events=3)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "POLARS_MAX_THREADS": threads}
    )
    assert files_of(tmp_path / "here") == files_of(tmp_path / "there")


def test_pieces_of_work_may_be_done_in_any_order_and_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        for one in arguments:  # as by a worker that was lost before it could say so
            function(*one)
        return [function(*one) for one in reversed(arguments)][::-1]

    monkeypatch.setattr(sharded, "PART_ROWS", 100)
    tied_log().write_parquet(tmp_path / "log.parquet")
    options: dict[str, Any] = {"shards": 4, "min_events": 4, "split": "k-fold", "fold_by": "events"}
    prepare(tmp_path / "log.parquet", tmp_path / "once", **options)
    prepare(tmp_path / "log.parquet", tmp_path / "twice", each=backwards, **options)
    assert files_of(tmp_path / "once") == files_of(tmp_path / "twice")


def test_preparing_again_and_linking(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    before = (tmp_path / "out" / "shards.json").stat().st_mtime_ns
    assert sharded_store(tied_log(), tmp_path / "out").fingerprint == store.fingerprint
    assert (tmp_path / "out" / "shards.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="with other options"):
        prepare(tied_log(), tmp_path / "out", shards=3)
    with pytest.raises(DataError, match="with other options"):
        prepare(tied_log(), tmp_path / "out")
    assert is_prepared(tmp_path / "out")
    assert is_prepared(store)
    linked = link_or_copy(store, tmp_path / "linked")
    assert isinstance(linked, ShardedStore)
    assert linked.fingerprint == store.fingerprint
    assert link_or_copy(store, tmp_path / "linked").fingerprint == store.fingerprint
    assert files_of(linked.path) == files_of(store.path)
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(DataError, match="holds 'notes.txt' besides"):
        prepare(tied_log(seed=1), tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "notes.txt").unlink()
    plain = prepare(tied_log(seed=1), tmp_path / "out", overwrite=True)
    assert not isinstance(plain, ShardedStore)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["linked", "out"]


def test_whatever_is_damaged_is_refused_in_a_line(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    kept = files_of(store.path)
    for name, content in kept.items():
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        path = store.path / name
        path.unlink()  # files of a catalog are links
        path.write_bytes(flipped)
        with pytest.raises(DataError) as caught:
            SequenceStore.open(store.path)
        message = str(caught.value)
        assert "\n" not in message, name
        assert message.startswith(str(tmp_path / "out")), name
        path.write_bytes(content)
    assert SequenceStore.open(store.path).fingerprint == store.fingerprint
    shutil.rmtree(store.path / store.shards[2].name)
    with pytest.raises(DataError, match="shard-00002-of-00004: the shard is missing"):
        SequenceStore.open(store.path)


def test_shards_of_another_preparation_are_refused(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    other = sharded_store(tied_log(seed=9), tmp_path / "other")
    name = store.shards[1].name
    shutil.rmtree(store.path / name)
    shutil.copytree(other.path / name, store.path / name)
    mixed = SequenceStore.open(store.path, verify=False)
    assert isinstance(mixed, ShardedStore)
    with pytest.raises(DataError, match=r"is not what shards\.json names"):
        mixed.shard(1)
    assert mixed.shard(0).n_users == store.shards[0].users


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards=0: give a whole number from 1"),
        ({"shards": -2}, "shards=-2: give a whole number from 1"),
        ({"shards": True}, "shards=True: give a whole number"),
        ({"shards": 2.5}, "shards=2.5: give a whole number"),
        ({"shards": 61}, "shards=61: the log has 60 users; pass fewer shards"),
        ({"shards": 55}, "would hold no user; pass fewer shards"),
        ({"shards": 2, "split": "k-fold"}, "fold_by='users' draws from all users at once"),
        ({"shards": 2, "min_events": 500}, "no event is left"),
        ({"shards": 2, "split": "temporal", "valid_time": 5, "test_time": 9}, "leaves no training event"),
    ],
)
def test_what_cannot_be_sharded_is_refused_and_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((ArgumentError, DataError), match=message):
        prepare(tied_log(), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_of_this_format(tmp_path: Path) -> None:
    store = sharded_store(tied_log(), tmp_path / "out")
    path = store.path / "shards.json"
    manifest = json.loads(path.read_text())
    for change, message in (
        ({"format_version": 9}, "format version 9 is not known"),
        ({"format": "x"}, "is no manifest of shards"),
        ({"name": "other"}, "the file changed since it was written"),
    ):
        path.write_text(json.dumps(manifest | change))
        with pytest.raises(DataError, match=message):
            SequenceStore.open(store.path)


KILLED = """
import os, signal, sys
from recsys.datasets.preparing import sharded
from recsys.datasets.preparing.prepare import prepare

def last(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

name, log, out = sys.argv[1:]
setattr(sharded, name, last)
prepare(log, out, shards=3, overwrite=True)
"""


@pytest.mark.parametrize("step", ["sort_shard", "write_shard", "_describe"])
def test_a_preparation_that_is_killed_leaves_what_was_there(tmp_path: Path, step: str) -> None:
    out = tmp_path / "out"
    old = sharded_store(tied_log(), out, 3)
    before = files_of(out)
    tied_log(seed=8).write_parquet(tmp_path / "log.parquet")
    command = [sys.executable, "-c", KILLED, step, str(tmp_path / "log.parquet"), str(out)]
    assert subprocess.run(command, check=False).returncode == -9
    assert files_of(out) == before
    assert any(entry.name.startswith(".out.writing-") for entry in tmp_path.iterdir())
    new = sharded_store(tmp_path / "log.parquet", out, 3, overwrite=True)
    assert new.fingerprint != old.fingerprint
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.parquet", "out"]
