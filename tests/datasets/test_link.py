"""A prepared dataset can stand in two folders without its bytes standing twice."""

import os
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.prepared.link import link_or_copy
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import DataError


def test_files_are_shared_where_the_disk_allows(store: SequenceStore, tmp_path: Path) -> None:
    copy = link_or_copy(store, tmp_path / "run" / "data")
    assert copy.path == tmp_path / "run" / "data"
    assert copy.fingerprint == store.fingerprint
    names = sorted(path.name for path in store.path.iterdir())
    assert sorted(path.name for path in copy.path.iterdir()) == names
    assert all(os.path.samefile(store.path / name, copy.path / name) for name in names)


def test_files_are_copied_where_links_are_refused(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    copy = link_or_copy(store, tmp_path / "copy")
    assert not os.path.samefile(store.path / "items.npy", copy.path / "items.npy")
    copy.verify()


def test_the_same_dataset_is_left_where_it_stands(store: SequenceStore, tmp_path: Path) -> None:
    first = link_or_copy(store, tmp_path / "copy")
    before = (first.path / "meta.json").stat().st_mtime_ns
    assert link_or_copy(store, tmp_path / "copy").fingerprint == store.fingerprint
    assert (first.path / "meta.json").stat().st_mtime_ns == before


def test_another_dataset_is_not_replaced(store: SequenceStore, log: pl.DataFrame, tmp_path: Path) -> None:
    other = prepare(log.head(50), tmp_path / "other")
    with pytest.raises(DataError, match="holds another prepared dataset"):
        link_or_copy(store, other.path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not the dataset"):
        link_or_copy(store, tmp_path / "folder")
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_nothing(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fill)
    monkeypatch.setattr("shutil.copyfile", fill)
    target = tmp_path / "run" / "data"
    with pytest.raises(DataError, match="the disk is full"):
        link_or_copy(store, target)
    assert list(target.parent.iterdir()) == []
