"""`recsys imitate` on the command line."""

from pathlib import Path

import polars as pl
import pytest

from recsys.datasets.synthetic import like
from recsys.datasets.synthetic.logs import markov_log
from tests.command_line import call, call_json


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two hundred users, with tabs between."""
    path = Path(tmp_path_factory.mktemp("imitate")) / "log.tsv"
    frame = markov_log(200, 40, seed=2).frame.rename({"user_id": "who", "item_id": "what"})
    frame.write_csv(path, separator="\t")
    return path


NAMES = ("--user-column", "who", "--item-column", "what")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_file_holds_what_python_makes(log: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"made.{suffix}"
    found = call_json("imitate", log, "--out", out, "--users", 90, "--seed", 4, *NAMES)
    made = pl.read_csv(out) if suffix == "csv" else pl.read_parquet(out)
    wanted = like(log, users=90, seed=4, user_column="who", item_column="what")
    assert made.equals(wanted)
    assert found == {
        "path": str(out),
        "events": made.height,
        "users": made["user_id"].n_unique(),
        "items": made["item_id"].n_unique(),
        "seed": 4,
    }


def test_it_says_what_it_does_and_replaces_a_file(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.csv"
    out.write_text("mine")
    done = call("imitate", log, "--out", out, "--clusters", 3, *NAMES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{out}: ")
    assert "200 users" in done.stderr
    assert "in 3 clusters" in done.stderr
    assert pl.read_csv(out).columns == ["user_id", "item_id", "timestamp"]
    assert call("imitate", log, "--out", out, "-q", *NAMES).stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["made.csv"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "made.txt"), "--out made.txt: the name says no format; end it with .csv or .parquet"),
        (("--out", "made.csv", "--users", "0"), "--users 0 must be a whole number of at least 1"),
        (("--out", "made.csv", "--seed", "-1"), "--seed -1 must be a whole number of at least 0"),
        (("--out", "made.csv", "--clusters", "0"), "--clusters 0 must be a whole number of at least 1"),
        (("--out", "made.csv", "--item-column", "which"), "no column 'which'"),
        (("--out", "folder.csv"), "--out folder.csv: is a folder; name a file"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    done = call("imitate", log, *NAMES[:2], *(() if "--item-column" in options else NAMES[2:]), *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert message in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_a_log_of_two_users_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n1,2,1600000000\n2,2,1600000001\n")
    done = call("imitate", path, "--out", tmp_path / "made.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has 2 users; nothing that 3 of them share can be imitated" in done.stderr
