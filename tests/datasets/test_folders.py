"""A folder appears whole or not at all, and what a killed process left behind goes or comes back."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.folders import WriteError, remove_leftovers, replacing_folder
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.errors import DataError


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_a_failure_leaves_nothing_and_the_old_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing_folder(target) as folder:
        (folder / "a").write_text("1", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), replacing_folder(target, overwrite=True) as folder:
        (folder / "a").write_text(str(1 / 0), encoding="utf-8")
    assert names(tmp_path) == ["out"]
    assert (target / "a").read_text(encoding="utf-8") == "1"


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    for name in (".out.writing-dead", ".out.writing-alive", ".out.config", ".other.writing-dead"):
        (tmp_path / name).mkdir()
    lock = os.open(tmp_path / ".out.writing-alive", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with replacing_folder(target) as folder:
        (folder / "a").touch()
    os.close(lock)
    assert names(tmp_path) == [".other.writing-dead", ".out.config", ".out.writing-alive", "out"]


def test_data_that_were_moved_aside_come_back(tmp_path: Path) -> None:
    aside = tmp_path / ".out.old-x" / "old"
    aside.mkdir(parents=True)
    (aside / "a").touch()
    remove_leftovers(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["a"]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_preparation_leaves_nothing_behind_the_next(tmp_path: Path, signal_number: int) -> None:
    code = (
        "import sys, time; from pathlib import Path; from recsys.datasets.folders import replacing_folder\n"
        "with replacing_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').touch(); print('writing', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal_number)
    process.wait(timeout=20)
    process.stdout.close()
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [int(time.time())]})
    prepare(frame, tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_the_empty_current_folder_is_filled(
    log: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = here.stat().st_ino
    store = prepare(log, ".")
    assert here.stat().st_ino == before
    assert SequenceStore.open(here).fingerprint == store.fingerprint
    assert names(tmp_path) == ["here"]
    with pytest.raises(WriteError, match="is the current folder or a mounted disk, and not empty"):
        prepare(log.head(50), ".", overwrite=True)
    assert SequenceStore.open(here).fingerprint == store.fingerprint


def test_overwrite_removes_a_prepared_dataset_and_nothing_else(log: pl.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(log, out)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds 'notes.txt' besides the prepared dataset"):
        prepare(log, out, min_events=2, overwrite=True)
    assert SequenceStore.open(out).fingerprint == first.fingerprint
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"
    (out / "notes.txt").unlink()
    assert prepare(log.head(50), out, overwrite=True).fingerprint != first.fingerprint
