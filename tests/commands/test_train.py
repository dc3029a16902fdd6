"""`recsys train` on folders that hold something, and on logs that nobody can be tested on."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.command_line import TINY, call, call_json

SETTINGS = ("--set=training.epochs=1", *TINY)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, log: pl.DataFrame) -> Path:
    path = Path(tmp_path_factory.mktemp("train")) / "log.csv"
    log.write_csv(path)
    return path


@pytest.fixture
def run(csv: Path, tmp_path: Path) -> Path:
    call_json("train", csv, "--out", tmp_path / "run", "--encoder", "bert4rec", *SETTINGS)
    return tmp_path / "run"


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_resume_takes_what_was_not_said_from_the_run(csv: Path, run: Path) -> None:
    before = _contents(run.parent)
    # Nothing is left to train: nothing changes but the report's and the index's files, which say the same.
    report = call_json("train", csv, "--out", run, "--resume")
    assert (report["encoder"], report["epochs"]) == ("bert4rec", 1)
    assert _contents(run.parent).keys() == before.keys()
    more = call_json("train", csv, "--out", run, "--resume", "--set=training.epochs=2")
    assert (more["encoder"], more["epochs"]) == ("bert4rec", 2)
    assert more["model_sha256"] == json.loads((run / "run.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume", "--encoder", "sasrec"], "another encoder ('bert4rec', not 'sasrec')"),
        (["--resume", "--preset", "paper"], "another preset ('tuned', not 'paper')"),
        (["--resume", "--set", "encoder.d_model=32"], "encoder.d_model = 16, not 32"),
        (["--resume", "--seed", "4"], "training.seed = 0, not 4"),
        ([], "go on with --resume, replace it with --overwrite, or choose another folder"),
        (["--overwrite", "--encoder", "sasrek"], "did you mean 'sasrec'"),
        (["--overwrite", "--set", "encoder.n_heads=5"], "n_heads"),
        (["--overwrite", "--clock"], "zone"),
        (["--overwrite", "--index", "tree"], "index kind 'tree' is not known"),
        (["--overwrite", "--device", "tpu"], "is not auto, cpu or cuda"),
    ],
)
def test_a_mistake_changes_no_byte_of_a_run(csv: Path, run: Path, options: list[str], message: str) -> None:
    before = _contents(run.parent)
    result = call("train", csv, "--out", run, *options)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert _contents(run.parent) == before


def test_a_log_that_nobody_can_be_tested_on_trains_all_the_same(log: pl.DataFrame, tmp_path: Path) -> None:
    log.group_by("user_id", maintain_order=True).head(2).write_csv(tmp_path / "two.csv")
    result = call("train", tmp_path / "two.csv", "--out", tmp_path / "run", "--json", *SETTINGS)
    assert result.returncode == 0, result.stderr
    assert "No user has a test event after a history: this run will not be tested" in result.stderr
    assert "metrics" not in json.loads(result.stdout)
    assert len(call_json("recommend", tmp_path / "run", "--user", "3", "--k", "2")["items"]) == 2


def test_a_log_too_short_leaves_nothing_and_no_circle(log: pl.DataFrame, tmp_path: Path) -> None:
    log.group_by("user_id", maintain_order=True).head(3).write_csv(tmp_path / "three.csv")
    for _ in range(2):
        result = call("train", tmp_path / "three.csv", "--out", tmp_path / "run", *SETTINGS)
        assert result.returncode == 2
        assert "three.csv: no user has two training events" in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["three.csv"]
