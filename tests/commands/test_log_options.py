"""Commands that read a log have every option of reading, splitting and filtering, declared in one place."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from recsys.commands.app import app
from recsys.commands.log_options import chosen
from recsys.datasets.preparing.options import OPTIONS

T = 1_600_000_000


@pytest.mark.parametrize("name", ["prepare", "train"])
def test_every_option_is_there_with_its_sentence(name: str) -> None:
    root: Any = typer.main.get_command(app)
    options = {parameter.name: parameter for parameter in root.commands[name].params}
    for kind in OPTIONS:
        for one in fields(kind):
            found = options[one.name]
            assert f"--{one.name.replace('_', '-')}" in found.opts
            assert found.help == one.metadata["help"]
            assert found.default == one.default


def test_only_what_differs_from_its_default_is_chosen() -> None:
    given = {"split": "leave-one-out", "folds": None, "min_events": 0, "header": False, "time_zone": None}
    assert chosen(given, *OPTIONS) == {"min_events": 0, "header": False}


def test_options_reach_the_preparation(tmp_path: Path) -> None:
    rows = [(user, item, T + item) for user in range(4) for item in range(6)] + [(9, 1, T)]
    log = tmp_path / "log.csv"
    log.write_text("who;item;time\n" + "".join(f"{u};{i};{t}000\n" for u, i, t in rows), encoding="utf-8")
    words = f"prepare {log} --out {tmp_path / 'out'} --user-column who --time-unit ms --split last-n"
    words += " --test-events 2 --valid-events 0 --min-user-events 2 --json"
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 0, result.output
    meta = json.loads(result.stdout)
    assert meta["split"] | {"train_events": 16, "valid_events": 0, "test_events": 8} == meta["split"]
    assert meta["removed"]["users"] == 1
    assert meta["options"]["min_item_events"] == 0
    assert meta["time"]["first"] == T


def test_own_files_reach_the_preparation_and_the_summary_is_printed(tmp_path: Path) -> None:
    for name, items in (("train", (1, 2, 3)), ("test", (2, 7))):
        lines = "".join(f"{user},{item},{T + item}\n" for user in (1, 2) for item in items)
        (tmp_path / f"{name}.csv").write_text("user,item,time\n" + lines, encoding="utf-8")
    words = [
        "prepare",
        str(tmp_path / "train.csv"),
        "--test",
        str(tmp_path / "test.csv"),
        "--time-unit",
        "order",
    ]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "split: files (6 train, 0 valid, 2 test events; 2 users tested)" in result.stdout
    assert "dropped as cold: 2 events of 1 items" in result.stdout
