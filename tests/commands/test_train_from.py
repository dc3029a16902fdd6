"""`recsys train DATA --from RUN`: what it says, takes over and refuses."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender
from tests.command_line import TINY, call, call_json, start
from tests.conftest import random_log

SETTINGS = ("--set=training.epochs=1", *TINY)
FEATURED = ("--set=encoder.item_parts=id+features", "--item-tags", "kind,maker")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two logs, of which the later has users and items of its own, item files, and runs on the first."""
    folder = Path(tmp_path_factory.mktemp("from"))
    log = random_log(users=40, items=24, seed=3, longest=15)
    later = random_log(users=44, items=28, seed=4, longest=15).filter(pl.col("item_id") > 1)
    log.write_csv(folder / "log.csv")
    later.write_csv(folder / "later.csv")
    items = pl.DataFrame({"item_id": range(28), "kind": [f"k{n % 4}" for n in range(28)]})
    items = items.with_columns(maker=pl.col("kind").str.replace("k", "m"))
    items.write_csv(folder / "items.csv")
    np.save(folder / "three.npy", np.random.default_rng(0).normal(size=(28, 3)).astype("float32"))
    np.save(folder / "four.npy", np.random.default_rng(0).normal(size=(28, 4)).astype("float32"))
    call_json("train", folder / "log.csv", "--out", folder / "run", "--encoder", "bert4rec", *SETTINGS)
    known = ("--items", folder / "items.csv")
    with_tags = ("train", folder / "log.csv", "--out", folder / "tags", *known, *FEATURED, *SETTINGS)
    call_json(*with_tags)
    vectors = ("--set=encoder.item_parts=features", "--item-vectors", folder / "three.npy")
    call_json("train", folder / "log.csv", "--out", folder / "vectors", *known, *vectors, *SETTINGS)
    return folder


def test_settings_that_were_not_said_are_the_parents(logs: Path, tmp_path: Path) -> None:
    result = call("train", logs / "later.csv", "--from", logs / "run", "--out", tmp_path / "new", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["encoder"], report["epochs"]) == ("bert4rec", 1)
    assert "items: 22 known, 4 new (4 start from the items beside them), 2 gone" in result.stderr
    assert "users: 40 known, 4 new, 0 gone" in result.stderr
    assert report["protocol"]["parent"]["path"] == str(logs / "run")
    # What comes of it is a run like any other, and knows where it comes from.
    assert len(call_json("recommend", tmp_path / "new", "--history", "5,26", "--k", "3")["items"]) == 3
    shown = call("evaluate", tmp_path / "new").stdout
    assert f"Goes on from: {logs / 'run'} (sha256 " in shown
    python = Recommender("bert4rec").fit(logs / "later.csv", from_run=logs / "run", out=tmp_path / "python")
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("new", "python")]
    assert weights[0] == weights[1]
    assert python.history_[0]["epoch"] == 1


def test_a_run_with_features_takes_them_from_the_new_data(logs: Path, tmp_path: Path) -> None:
    options = ("--items", logs / "items.csv", "--item-tags", "kind,maker", "--keep-cold")
    arguments = ("train", logs / "later.csv", "--from", logs / "tags", "--out", tmp_path / "new", *options)
    result = call(*arguments, "--set=encoder.item_id_dropout=0.5")
    assert result.returncode == 0, result.stderr
    # The two that are gone from the log are kept by the file of items.
    assert "items: 24 known, 4 new (they start from their features), 0 gone" in result.stderr


@pytest.mark.parametrize(
    ("run", "options", "message"),
    [
        ("tags", [], "later.csv: has no tags of items, and"),
        ("tags", ["--item-tags", "kind"], "has no tags of the column 'maker'"),
        ("tags", ["--item-tags", "kind,maker", "--item-vectors", "three.npy"], "has vectors of items, which"),
        ("vectors", ["--item-tags", "kind"], "prepare the log without --item-tags or --item-words"),
        ("vectors", ["--item-vectors", "four.npy"], "vectors have 4 numbers and those of"),
        ("vectors", [], "has no vectors of items, and"),
    ],
)
def test_other_features_than_the_parents_are_refused(
    logs: Path, tmp_path: Path, run: str, options: list[str], message: str
) -> None:
    options = [str(logs / option) if option.endswith(".npy") else option for option in options]
    known = ("--items", logs / "items.csv") if options else ()
    result = call(
        "train", logs / "later.csv", "--from", logs / run, "--out", tmp_path / "new", *known, *options
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not list(tmp_path.iterdir())


def test_a_log_of_other_items_is_refused(logs: Path, tmp_path: Path) -> None:
    later = pl.read_csv(logs / "later.csv").with_columns(pl.format("item {}", "item_id").alias("item_id"))
    later.write_csv(tmp_path / "named.csv")
    result = call("train", tmp_path / "named.csv", "--from", logs / "run", "--out", tmp_path / "new")
    assert (result.returncode, result.stdout) == (2, "")
    assert "named.csv: has none of the items of" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["named.csv"]


def _torn(run: Path) -> None:
    (tensors,) = (run / "checkpoint").glob("tensors-*")
    tensors.write_bytes(tensors.read_bytes()[:-1])


def _edited(run: Path) -> None:
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("d_model = 16", "d_model = 32"))


def _state_gone(run: Path) -> None:
    state = json.loads((run / "checkpoint" / "state.json").read_text())
    (run / "checkpoint" / "state.json").write_text(json.dumps({"format": state["format"]}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: shutil.rmtree(run / "checkpoint"), "has no checkpoint, which training goes on from"),
        (_torn, "missing or damaged (its sha256 is not the recorded one)"),
        (_edited, "config.toml: does not fit the checkpoint; one of them was edited"),
        (_state_gone, "state.json: not a checkpoint of this project"),
        (lambda run: (run / "checkpoint" / "state.json").write_text("{"), "not valid JSON"),
        (lambda run: (run / "run.json").unlink(), "training has not finished; go on with --resume"),
        (lambda run: (run / "run.json").write_text("[]"), "a JSON object was expected"),
        (lambda run: (run / "data" / "items.npy").unlink(), "items.npy"),
        (lambda run: (run / "data" / "items.parquet").write_bytes(b""), "items.parquet"),
    ],
)
def test_a_damaged_parent_is_refused_in_a_line(logs: Path, tmp_path: Path, harm: Any, message: str) -> None:
    shutil.copytree(logs / "run", tmp_path / "run")
    harm(tmp_path / "run")
    result = call("train", logs / "later.csv", "--from", tmp_path / "run", "--out", tmp_path / "new")
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_killed_run_goes_on_to_the_same_bits(logs: Path, tmp_path: Path) -> None:
    epochs = "--set=training.epochs=15"
    common = ("train", logs / "later.csv", "--from", logs / "run", epochs, "--quiet")
    assert call(*common, "--out", tmp_path / "whole").returncode == 0
    process = start(*common, "--out", tmp_path / "cut")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "cut" / "run.json").exists()
    resumed = call("train", logs / "later.csv", "--from", logs / "run", "--out", tmp_path / "cut", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]
