"""`recsys compare`, `evaluate --slices`, `train --select`, `--log-to` and `--plugin` on the command line."""

import json
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys
from recsys.encoders import registry
from recsys.training.callbacks import Callback
from recsys.training.loggers import LOGGERS
from tests.command_line import TINY, call, call_json

OWN = Path(__file__).parents[1] / "encoders" / "own_encoder.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    recsys.prepare(log, folder / "data")
    recsys.prepare(log.filter(pl.col("user_id") < 40), folder / "others")
    for name, data, options in (
        ("a", "data", ["--set=training.epochs=3", "--select", "mrr@5"]),
        ("b", "data", ["--set=training.epochs=1", "--seed", "5"]),
        ("c", "others", ["--set=training.epochs=1"]),
    ):
        done = call("train", folder / data, "--out", folder / name, *TINY, *options)
        assert done.returncode == 0, done.stderr
    return folder


def test_two_runs_are_compared_on_the_same_users(runs: Path) -> None:
    found = call_json("compare", runs / "a", runs / "b", "--k", "5,10", "--resamples", "200")
    assert (found["a"], found["b"], found["users"]) == (str(runs / "a"), str(runs / "b"), 60)
    for side, run in (("a", "a"), ("b", "b")):
        own = call_json("evaluate", runs / run, "--k", "10")["metrics"]
        assert found["metrics"]["ndcg@10"][side] == pytest.approx(own["ndcg@10"])
    low, high = found["metrics"]["ndcg@10"]["interval"]
    assert low <= found["metrics"]["ndcg@10"]["difference"] <= high
    shown = call("compare", runs / "a", runs / "b", "--slices", "--resamples", "50").stdout
    assert "by          slice" in shown
    assert "Protocol:     default" in shown


def test_a_protocol_that_draws_users_draws_the_same_for_both(runs: Path) -> None:
    found = call_json("compare", runs / "a", runs / "b", "--protocol", "sasrec", "--resamples", "20")
    assert found["metrics"]["hr@10"]["users"] == found["users"]


def test_runs_on_other_data_are_one_line(runs: Path) -> None:
    done = call("compare", runs / "a", runs / "c")
    assert done.returncode == 2
    assert "hold different data" in done.stderr
    assert done.stderr.count("\n") == 1


def test_slices_are_shown_where_they_are_asked_for(runs: Path) -> None:
    assert "popularity" in call("evaluate", runs / "a", "--slices").stdout
    plain = call("evaluate", runs / "a").stdout
    assert "repeated" not in plain
    assert "repeated" in call("evaluate", runs / "a", "--slices").stdout


def test_the_metric_that_selects_is_a_setting_of_the_run(runs: Path, tmp_path: Path) -> None:
    config = tomllib.loads((runs / "a" / "config.toml").read_text())
    assert config["training"]["select"] == "mrr@5"
    lines = (runs / "a" / "metrics.jsonl").read_text().splitlines()
    assert all("mrr@5" in json.loads(line)["valid"] for line in lines)
    done = call("train", runs / "data", "--out", tmp_path / "x", "--select", "map@5", *TINY)
    assert done.returncode == 2
    assert "training.select = 'map@5' is out of range" in done.stderr


class _Heard(Callback):
    told: list[Any]

    def __init__(self, where: str | None) -> None:
        self.told.append(where)

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        self.told.append(record["epoch"])


def test_a_logger_is_told_of_the_epochs(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Heard.told = []
    monkeypatch.setitem(LOGGERS, "wandb", _Heard)
    options = ["--set=training.epochs=2", "--log-to", "wandb:films", *TINY]
    assert call("train", runs / "data", "--out", tmp_path / "x", *options).returncode == 0
    assert _Heard.told == ["films", 1, 2]
    done = call("train", runs / "data", "--out", tmp_path / "y", "--log-to", "w&b", *TINY)
    assert "unknown logger 'w&b'; did you mean 'wandb'" in done.stderr
    assert not (tmp_path / "y").exists()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with an encoder of one's own, which is unknown again afterwards."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    shutil.copy(OWN, tmp_path / "my_encoder.py")
    yield tmp_path
    sys.modules.pop("my_encoder", None)


def test_an_encoder_of_ones_own_is_named_on_every_command(runs: Path, own_folder: Path) -> None:
    options = ("--set=encoder.d_model=8", "--set=training.epochs=1")
    train = ("train", runs / "data", "--encoder", "last-item", *options, "--out", "run")
    unknown = call(*train)
    assert unknown.returncode == 2
    assert "unknown encoder 'last-item'" in unknown.stderr
    assert not (own_folder / "run").exists()
    assert call(*train, "--plugin", "my_encoder:LastItem").returncode == 0
    registry._REGISTRY.pop("last-item")
    sys.modules.pop("my_encoder")
    refused = call("recommend", "run", "--user", "3")
    assert refused.returncode == 2
    assert (
        "encoder 'last-item' is not built in: import my_encoder first (--plugin my_encoder" in refused.stderr
    )
    answers = call_json("recommend", "run", "--user", "3", "--plugin", "my_encoder")
    assert len(answers["items"]) == 10
    compared = call_json("compare", "run", runs / "b", "--plugin", "my_encoder", "--resamples", "20")
    assert compared["users"] == 60
