"""What a training is given: stores, prepared folders, logs of every kind, and options of preparing."""

import os
import threading
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.given import given_data
from recsys.errors import ArgumentError


def test_a_store_or_its_folder_is_linked_and_takes_no_options(store: SequenceStore, tmp_path: Path) -> None:
    for number, data in enumerate((store, store.path, str(store.path))):
        given = given_data(data)
        assert given.prepared
        assert given.put(tmp_path / f"put-{number}").fingerprint == store.fingerprint
        assert given.is_source_of(store)
        with pytest.raises(ArgumentError, match="is prepared already, so split= comes too late"):
            given_data(data, {"split": "temporal"})


def test_a_log_is_prepared_with_its_options_and_told_of(log: pl.DataFrame, tmp_path: Path) -> None:
    told: list[str] = []
    oldest = log.sort("timestamp").head(3)  # of the training part, repeated
    renamed = pl.concat([log, oldest]).rename({"user_id": "who"})
    given = given_data(renamed, {"user_column": "who", "split": "temporal"}, told.append)
    store = given.put(tmp_path / "out")
    assert store.meta["split"]["name"] == "temporal"
    assert given.is_source_of(store)
    assert not given_data(renamed, {"user_column": "who"}).is_source_of(store)
    assert not given_data(renamed.head(50), {"user_column": "who", "split": "temporal"}).is_source_of(store)
    assert store.meta["counts"]["duplicate_events"] == 3 + len(log) - log.n_unique()
    assert f"kept: {3 + len(log) - log.n_unique()} events that repeat user, item and time of another" in told


def test_the_log_alone_is_known_again_whatever_options_it_was_prepared_with(
    log: pl.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    log.write_csv(path)
    store = given_data(path, {"min_events": 2}).put(tmp_path / "out")
    assert given_data(path).is_source_of(store)
    (tmp_path / "renamed.csv").write_bytes(path.read_bytes())
    assert given_data(tmp_path / "renamed.csv").is_source_of(store)


def test_a_prepared_folder_with_a_known_name_wins_and_says_so(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    store.path.rename("ml-100k")
    given = given_data("ml-100k", notify=told.append)
    assert given.open().fingerprint == store.fingerprint
    assert told == ["ml-100k: the prepared folder of that name is taken, not the known log"]
    (tmp_path / "ml-100k" / "meta.json").unlink()
    assert not given_data("ml-100k").prepared


def test_a_pipe_can_be_asked_twice(log: pl.DataFrame, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(log.write_csv(), encoding="utf-8"))
    writer.start()
    given = given_data(pipe)
    writer.join()
    assert given.is_source_of(given.put(tmp_path / "out"))
