"""Runs that several processes train: one folder, one writer, the bits of one process."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from recsys.files import sha256_of
from recsys.recommender import Recommender
from tests.conftest import random_log
from tests.training.processes.dying import recipe
from tests.training.processes.launching import all_well, launch

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log as a file."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    random_log(users=60, items=30, seed=5).write_parquet(path)
    return str(path)


def _alone(log: str, out: Path, epochs: int, **options: Any) -> str:
    """Train in this process; the sha256 of the weights."""
    Recommender("sasrec", **recipe(epochs)).fit(log, out=out, **options)
    return sha256_of(out / "model.safetensors")


def _settings(epochs: int) -> list[str]:
    """The same recipe on the command line."""
    chosen = recipe(epochs)
    sections = {"encoder": chosen["encoder_options"], "training": chosen["training_options"]}
    said = [f"{where}.{key}={value}" for where, options in sections.items() for key, value in options.items()]
    return ["--device", "cpu", "--quiet", *(word for one in said for word in ("--set", one))]


def test_two_processes_write_the_run_of_one_and_one_writes_it(log: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    out, begun, record = place / "run", place / "begun", tmp_path / "record"
    _alone(log, begun, 1)
    command = ["train", log, "--out", str(out), *_settings(2), "--json"]
    found = launch(2, "-m", "tests.training.processes.runs", str(place), str(record), log, *command)
    all_well(found)
    longer = _alone(log, tmp_path / "longer", 3)
    # What one process began two have ended, and the reverse.
    assert sha256_of(begun / "model.safetensors") == longer
    assert sha256_of(out / "model.safetensors") == _alone(log, tmp_path / "alone", 2)
    assert _alone(log, out, 3, resume=True) == longer
    assert [process.stderr for process in found] == ["refused\n"] * 2
    assert not (place / "refused").exists()
    assert json.loads(found[0].stdout)["epochs"] == 2
    assert found[1].stdout == ""
    written = [Path(f"{record}-{rank}").read_text(encoding="utf-8") for rank in (0, 1)]
    for name in (
        ".begun.resuming/.model",
        ".run.starting/.config",
        "run/.model",
        "state.json",
        "run.json",
        ".run.lock",
    ):
        assert name in written[0]
    assert written[1] == ""


def test_a_killed_process_ends_the_other_and_the_run_goes_on(log: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    found = launch(2, "-m", "tests.training.processes.dying", log, str(out), "1", "16")
    assert found[1].returncode == -signal.SIGKILL
    assert found[0].returncode == 2
    assert found[0].stderr.startswith("RunError: another process of this training has ended")
    assert found[0].stderr.count("\n") == 1
    assert not (out / "model.safetensors").exists()
    assert _alone(log, out, 4, resume=True) == _alone(log, tmp_path / "alone", 4)
