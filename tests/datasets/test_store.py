"""A prepared dataset opens with numpy alone and refuses to open once anything in it is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.datasets.prepared.files import sha256_of
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ArgumentError, DataError


def edit_meta(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


def replace_array(folder: Path, name: str, values: np.ndarray[Any, Any]) -> None:
    """Write another array and a meta.json that fits it, so that only the values are wrong."""
    np.save(folder / f"{name}.npy", values)
    entry = {
        "bytes": (folder / f"{name}.npy").stat().st_size,
        "sha256": sha256_of(folder / f"{name}.npy"),
    }
    edit_meta(folder, lambda meta: meta["files"].__setitem__(f"{name}.npy", entry))


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        SequenceStore.open(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_the_arrays_are_those_of_the_sorted_log(store: SequenceStore, log: pl.DataFrame) -> None:
    frame = log.sort(["user_id", "timestamp"], maintain_order=True)
    items = sorted(set(frame["item_id"]))
    assert store.items.tolist() == [items.index(item) for item in frame["item_id"]]
    assert store.timestamps is not None
    assert store.timestamps.tolist() == frame["timestamp"].to_list()
    counts = frame.group_by("user_id").len().sort("user_id")["len"].to_list()
    assert np.diff(store.offsets).tolist() == counts
    assert (store.n_users, store.n_items, store.n_events) == (len(counts), len(items), len(frame))
    assert store.items.dtype == np.int32
    assert {a.dtype for a in (store.timestamps, store.offsets, store.valid_start, store.test_start)} == {
        np.dtype(np.int64)
    }
    assert store.utc_offsets is None


def test_arrays_are_memory_mapped_and_read_only(store: SequenceStore) -> None:
    assert isinstance(store.items, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.items[0] = 1


def test_sequences_end_where_their_part_begins(store: SequenceStore) -> None:
    for user in range(store.n_users):
        events = store.items[store.offsets[user] : store.offsets[user + 1]].tolist()
        assert store.history(user, "all").tolist() == events
        tested = len(events) >= 3
        assert store.history(user, "test").tolist() == (events[:-1] if tested else events)
        assert store.history(user, "valid").tolist() == (events[:-2] if tested else events)
        assert store.train_sequence(user).tolist() == store.history(user, "valid").tolist()


def test_item_counts_are_those_of_training_events(store: SequenceStore) -> None:
    expected = np.zeros(store.n_items, dtype=np.int64)
    for user in range(store.n_users):
        np.add.at(expected, store.train_sequence(user), 1)
    assert store.item_counts().tolist() == expected.tolist()
    assert expected.sum() < store.n_events
    assert store.item_counts().dtype == np.int64


def test_a_caller_cannot_change_the_counts(store: SequenceStore) -> None:
    store.item_counts()[:] = 0
    assert store.item_counts().sum() > 0


@pytest.mark.parametrize("block", [1, 7, 20, 96])
def test_items_are_counted_block_by_block(
    store: SequenceStore, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    wanted = store.item_counts()
    monkeypatch.setattr("recsys.datasets.prepared.store._COUNTED_AT_ONCE", block)
    assert SequenceStore.open(store.path).item_counts().tolist() == wanted.tolist()


def test_users_and_splits_out_of_range_are_refused(store: SequenceStore) -> None:
    with pytest.raises(ArgumentError, match=f"user={store.n_users}"):
        store.history(store.n_users)
    with pytest.raises(ArgumentError, match="user=-1"):
        store.train_sequence(-1)
    with pytest.raises(ArgumentError, match="split='tset'"):
        store.history(0, "tset")  # type: ignore[arg-type]


def test_opening_imports_numpy_alone(store: SequenceStore) -> None:
    program = (
        "import sys\n"
        "for name in ('polars', 'pyarrow', 'torch', 'numba', 'rich', 'platformdirs'):\n"
        "    sys.modules[name] = None\n"
        "from recsys.datasets.prepared.link import link_or_copy\n"
        "from recsys.datasets.prepared.store import SequenceStore\n"
        f"store = SequenceStore.open({str(store.path)!r})\n"
        f"copy = link_or_copy(store, {str(store.path.parent / 'copy')!r})\n"
        "print(copy.fingerprint)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == store.fingerprint


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nowhere")


def test_another_folder_or_a_file_is_refused(tmp_path: Path) -> None:
    assert "not a prepared dataset (no meta.json)" in refusal(tmp_path)
    (tmp_path / "file").write_text("")
    assert "not a prepared dataset" in refusal(tmp_path / "file")


@pytest.mark.parametrize("text", ["", "{", '{"format": "recsys-sequences", "format_version": 1}'])
def test_a_damaged_meta_is_refused(store: SequenceStore, text: str) -> None:
    (store.path / "meta.json").write_text(text)
    assert "damaged" in refusal(store.path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": "other"}'])
def test_a_meta_of_something_else_is_refused(store: SequenceStore, text: str) -> None:
    (store.path / "meta.json").write_text(text)
    assert "not a prepared dataset" in refusal(store.path)


def test_an_unknown_format_version_is_refused(store: SequenceStore) -> None:
    edit_meta(store.path, lambda meta: meta.update(format_version=99))
    assert "format version 99 is not known here (1 is)" in refusal(store.path)


@pytest.mark.parametrize(
    "name",
    [
        "items.npy",
        "timestamps.npy",
        "offsets.npy",
        "valid_start.npy",
        "test_start.npy",
        "users.parquet",
        "items.parquet",
    ],
)
def test_a_missing_or_cut_or_changed_file_is_refused(store: SequenceStore, name: str) -> None:
    path = store.path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"{name}: has {len(content) - 1} bytes, {len(content)} belong there" in refusal(store.path)
    path.write_bytes(content + b"\0")
    assert f"{name}: has {len(content) + 1} bytes" in refusal(store.path, verify=False)
    flipped = bytearray(content)
    flipped[-1] ^= 1
    path.write_bytes(flipped)
    assert f"{name}: the file changed" in refusal(store.path)
    path.unlink()
    assert f"{name}: the file is missing" in refusal(store.path)


def test_large_datasets_are_not_hashed_unless_asked(
    store: SequenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.path / "timestamps.npy"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("recsys.datasets.prepared.store.VERIFY_BYTES", 10)
    SequenceStore.open(store.path)
    assert "the file changed" in refusal(store.path, verify=True)


def test_a_vocabulary_that_is_not_listed_is_refused(store: SequenceStore) -> None:
    edit_meta(store.path, lambda meta: meta["files"].pop("users.parquet"))
    assert "does not list users.parquet" in refusal(store.path)


def test_a_header_of_rubbish_is_refused(store: SequenceStore) -> None:
    path = store.path / "items.npy"
    size = path.stat().st_size
    path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"x" * (size - 10))
    assert "items.npy: damaged" in refusal(store.path, verify=False)


def test_a_pickled_array_is_never_loaded(store: SequenceStore) -> None:
    replace_array(store.path, "items", np.array([{"a": 1}], dtype=object))
    assert "items.npy: damaged" in refusal(store.path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("items", np.zeros(96, dtype=np.int64)),
        ("items", np.zeros((96, 1), dtype=np.int32)),
        ("offsets", np.zeros(13, dtype=np.int32)),
    ],
)
def test_a_wrong_type_or_shape_is_refused(
    store: SequenceStore, name: str, values: np.ndarray[Any, Any]
) -> None:
    replace_array(store.path, name, values)
    assert "belongs there" in refusal(store.path)


@pytest.mark.parametrize("name", ["timestamps", "offsets", "valid_start", "test_start"])
def test_a_wrong_length_is_refused(store: SequenceStore, name: str) -> None:
    replace_array(store.path, name, np.asarray(getattr(store, name))[:-1])
    assert f"{name}.npy: holds" in refusal(store.path)


def test_positions_that_fall_are_refused(store: SequenceStore) -> None:
    offsets = np.array(store.offsets)
    offsets[1], offsets[2] = offsets[2], offsets[1]
    replace_array(store.path, "offsets", offsets)
    assert "positions do not rise" in refusal(store.path)


@pytest.mark.parametrize("name", ["valid_start", "test_start"])
@pytest.mark.parametrize("step", [-50, 50])
def test_marks_outside_their_user_are_refused(store: SequenceStore, name: str, step: int) -> None:
    marks = np.array(getattr(store, name))
    marks[3] += step
    replace_array(store.path, name, marks)
    assert "leave their user's events" in refusal(store.path)


@pytest.mark.parametrize("item", [-1, 9])
def test_items_outside_the_catalog_are_refused(store: SequenceStore, item: int) -> None:
    items = np.array(store.items)
    items[5] = item
    replace_array(store.path, "items", items)
    assert "an item lies outside [0, 9)" in refusal(store.path)


def test_the_fingerprint_follows_the_data_and_not_the_titles(store: SequenceStore) -> None:
    before = store.fingerprint
    edit_meta(store.path, lambda meta: meta["files"]["items.parquet"].update(sha256="0" * 64))
    assert SequenceStore.open(store.path, verify=False).fingerprint == before
    edit_meta(store.path, lambda meta: meta["ids"].update(users="0" * 64))
    assert SequenceStore.open(store.path, verify=False).fingerprint != before
