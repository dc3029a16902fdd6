"""`recsys tune`: trials by validation, that go on; what is refused; the settings it leaves."""

import json
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys
from recsys.errors import ConfigError, MissingDependencyError, RunError
from recsys.tuning.choices import read_choices, start_within
from recsys.tuning.tune import tune, tune_table
from tests.command_line import call, call_json

SPACE = """
[encoder]
d_model = [8, 16]
[training]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""
FIXED: dict[str, Any] = {
    "encoder_options": {"n_layers": 1, "d_ff": 16, "max_length": "16"},
    "training_options": {"epochs": 2, "batch_events": 256, "select": "mrr@5"},
}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "space.toml").write_text(SPACE)
    return tmp_path / "space.toml"


@pytest.fixture(scope="module")
def data(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune") / "data"
    recsys.prepare(log, folder)
    return folder


def test_a_search_goes_on_as_if_never_stopped(data: Path, space: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    whole = tune(data, tmp_path / "whole", 3, space=space, **FIXED)
    first = tune(data, tmp_path / "parts", 2, space=space, **FIXED)
    parts = tune(data, tmp_path / "parts", 3, space=space, **FIXED)
    assert [t["settings"] for t in first["trials"]] == [t["settings"] for t in whole["trials"][:2]]
    assert [t["settings"] for t in parts["trials"]] == [t["settings"] for t in whole["trials"]]
    assert [t["score"] for t in parts["trials"]] == [t["score"] for t in whole["trials"]]
    for trial in whole["trials"]:
        assert 1e-3 <= trial["settings"]["training.learning_rate"] <= 1e-2
        assert trial["score"] == max(
            json.loads(line)["valid"]["mrr@5"]
            for line in (tmp_path / "whole" / trial["run"] / "metrics.jsonl").read_text().splitlines()
        )
    best = max(whole["trials"], key=lambda trial: trial["score"])
    kept = tomllib.loads((tmp_path / "whole" / "best.toml").read_text())
    assert kept["encoder"] == {
        "n_layers": 1,
        "d_ff": 16,
        "max_length": 16,
        "d_model": best["settings"]["encoder.d_model"],
    }
    assert kept["training"]["select"] == "mrr@5"
    header, rows = tune_table(whole)
    assert header == ["d_model", "learning_rate", "valid mrr@5", "epoch", "training"]
    assert rows[0][2] == f"{best['score']:.4f}"


def test_the_presets_settings_are_the_first_trial(data: Path, space: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space.write_text("[encoder]\ndropout = { low = 0.1, high = 0.6 }\n")
    record = tune(data, tmp_path / "out", 1, space=space, **FIXED)
    (trial,) = record["trials"]
    assert trial["settings"] == {"encoder.dropout": 0.5}


def test_a_trial_that_was_interrupted_is_taken_up(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    fit, seen = recsys.Recommender.fit, []

    def dies(model: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(model.configs())
        if len(seen) == 2:
            raise KeyboardInterrupt
        return fit(model, *arguments, **options)

    monkeypatch.setattr(recsys.Recommender, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        tune(data, tmp_path / "out", 2, space=space, **FIXED)
    tune(data, tmp_path / "out", 2, space=space, **FIXED)
    assert len(seen) == 3
    assert seen[2] == seen[1]


def test_a_trial_that_fails_does_not_count_and_many_end_the_search(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    fit, calls = recsys.Recommender.fit, []

    def fails(model: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(model)
        if len(calls) in failing:
            raise RunError("the loss is not finite")
        return fit(model, *arguments, **options)

    monkeypatch.setattr(recsys.Recommender, "fit", fails)
    failing, said = {1}, list[str]()
    record = tune(data, tmp_path / "out", 1, space=space, say=said.append, **FIXED)
    assert (len(record["trials"]), len(calls)) == (1, 2)
    assert "out: the trial failed: the loss is not finite" in said
    failing = set(range(100))
    with pytest.raises(RunError, match="not finite"):
        tune(data, tmp_path / "out", 5, space=space, **FIXED)
    assert len(calls) == 5


def test_another_search_or_log_is_refused_and_changes_nothing(
    data: Path, space: Path, tmp_path: Path, log: pl.DataFrame
) -> None:
    pytest.importorskip("optuna")
    out = tmp_path / "out"
    tune(data, out, 1, space=space, **FIXED)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    others: list[tuple[str, Any, dict[str, Any]]] = [
        ("another log", log.head(500), {}),
        ("another encoder", data, {"encoder": "mamba", "encoder_options": {"n_layers": 1}}),
        ("another seed", data, {"seed": 3}),
        ("another base", data, {"training_options": {**FIXED["training_options"], "epochs": 1}}),
    ]
    for message, given, changed in others:
        with pytest.raises(RunError, match=f"holds a search (with|on) {message}"):
            tune(given, out, 1, **{"space": space, **FIXED, **changed})
    # The record of an earlier version lacks settings that came later.
    record = json.loads(before["tune.json"])
    del record["base"]["encoder"]["event_columns"], record["base"]["training"]["propensity_power"]
    (out / "tune.json").write_text(json.dumps(record))
    tune(log, out, 1, space=space, **FIXED)  # the same log, given otherwise
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(RunError, match="exists and is not a search"):
        tune(data, tmp_path / "full", 1, space=space, **FIXED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[encoder]\nd_modl = [8]\n", "unknown key encoder.d_modl; did you mean 'd_model'"),
        ("[encoder]\ndropout = [1.5]\n", "encoder.dropout = 1.5 is out of range"),
        ("[training]\nlearning_rate = { low = 1 }\n", "takes a list of values, or"),
        ("[training]\nlearning_rate = { low = 2, high = 1 }\n", "has no values from 2 to 1"),
        ("[training]\nlearning_rate = { low = 0, high = 1, log = true }\n", "has no values from 0 to 1"),
        ("[training]\nloss = { low = 'full', high = 'bce' }\n", "ends are not numbers"),
        ("[model]\nx = [1]\n", "has the sections .encoder. and .training., not model"),
        ("", "and at least one setting"),
        ("encoder = 3\n", "encoder must be a section"),
        ("[", "not valid TOML"),
    ],
)
def test_a_wrong_space_is_one_line_and_makes_nothing(
    data: Path, space: Path, tmp_path: Path, text: str, message: str
) -> None:
    space.write_text(text)
    with pytest.raises(ConfigError, match=message):
        tune(data, tmp_path / "out", 1, space=space, **FIXED)
    assert not (tmp_path / "out").exists()


def test_what_is_set_is_not_searched(data: Path, space: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(ConfigError, match="encoder.d_model is searched and set as well"):
        tune(data, tmp_path / "out", 1, space=space, encoder_options={"hidden_size": 8})
    record = tune(data, tmp_path / "out", 1, **FIXED)
    assert "encoder.n_layers" not in record["searched"]
    assert "encoder.d_model" in record["searched"]


def test_optuna_that_is_missing_is_one_line(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match="optuna is not installed: pip install"):
        tune(data, tmp_path / "out", 1, space=space, **FIXED)


def test_a_start_outside_what_is_searched_is_none() -> None:
    choices = read_choices({"encoder": {"a": [1, 2], "b": {"low": 0, "high": 1}}}, "x", lambda k, v: None)
    assert start_within(choices, {"encoder": {"a": 2, "b": 0.5}}) == {"encoder.a": 2, "encoder.b": 0.5}
    assert start_within(choices, {"encoder": {"a": 3, "b": 0.5}}) is None
    assert start_within(choices, {"encoder": {"a": 1, "b": None}}) is None


def test_the_command_searches_and_says_how_to_train(data: Path, space: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = ["--space", space, "--trials", 1, "--set", "training.epochs=1", "--set", "encoder.n_layers=1"]
    record = call_json("tune", data, "--out", tmp_path / "out", *options, "--select", "hr@5")
    assert record["select"] == "hr@5"
    done = call("tune", data, "--out", tmp_path / "out", *options, "--select", "hr@5")
    assert "valid hr@5" in done.stdout
    assert f"--config {tmp_path / 'out' / 'best.toml'}" in done.stderr
    refused = call("tune", data, "--out", tmp_path / "out", *options)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
