"""The clock on the command line: training, moments, zones, refusals, pictures."""

from pathlib import Path

import polars as pl
import pytest

from recsys import Recommender
from recsys.datasets.synthetic.logs import clock_log
from tests.command_line import TINY, call, call_json

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with hours, categories of its items, and runs with a clock and without."""
    folder: Path = tmp_path_factory.mktemp("clock-cli")
    clock_log(60, 20, mean_length=12, utc_offset_hours=-5).frame.write_csv(folder / "log.csv")
    kinds = ["coffee", "dinner|music"]
    pl.DataFrame({"item_id": range(20), "category": [kinds[i % 2] for i in range(20)]}).write_csv(
        folder / "items.csv"
    )
    prepared = ["--time-zone", "-05:00", "--items", folder / "items.csv", "--out", folder / "data"]
    assert call("prepare", folder / "log.csv", *prepared).returncode == 0
    # Said, for the preset would choose a clock for a log that repeats.
    without = ["--set=encoder.clock=off", "--set=encoder.repeat_by=last"]
    for name, options in (("with", ["--clock", without[1]]), ("without", without)):
        trained = call(
            "train", folder / "data", *TINY, "--set=training.epochs=1", *options, "--out", folder / name
        )
        assert trained.returncode == 0, trained.stderr
    return folder


def test_clock_trains_the_interest_clock(folder: Path) -> None:
    assert Recommender.load(folder / "with").encoder_.clock is not None
    assert Recommender.load(folder / "without").encoder_.clock is None
    report = call_json("evaluate", folder / "with")
    assert sum(part["rows"] for part in report["slices"]["hour"].values()) == report["targets"]


def test_a_moment_is_local_time_of_the_zone(folder: Path) -> None:
    def scores(*options: str) -> list[tuple[int, float]]:
        found = call_json("recommend", folder / "with", "--user", "3", "--include-seen", *options)
        return [(row["item"], round(row["score"], 5)) for row in found["items"]]

    eight = scores("--at", "2030-01-01T08:00")
    assert eight == scores("--at", "1893502800") == scores("--at", "2030-01-01T13:00+00:00")
    assert eight != scores("--at", "2030-01-01T20:00")
    assert eight != scores("--at", "1893502800", "--time-zone", "Asia/Tokyo")
    history = ("recommend", folder / "with", "--history", "1,2", "--times", "1800000000,1800100000")
    assert len(call_json(*history, "--at", "2027-06-01T08:00", "--time-zone", "+02:00")["items"]) == 10


def test_a_clocked_run_says_for_which_hour_it_answers(folder: Path, tmp_path: Path) -> None:
    asked = call("recommend", folder / "with", "--user", "3", "--at", "2030-01-01T08:00")
    assert "Asked for 2030-01-01T08:00:00\n" in asked.stderr
    found = call_json("recommend", folder / "with", "--user", "3", "--at", "2030-01-01T08:00")
    assert found["asked_at"] == {"unix": 1893502800, "local": "2030-01-01T08:00:00"}
    last = call("recommend", folder / "with", "--user", "3")
    assert "the time of the last event: --at takes another" in last.stderr
    early = call("recommend", folder / "with", "--user", "3", "--at", "1980-01-01T08:00")
    assert "before the last event of 1 request(s): asked at the next such hour after it" in early.stderr
    assert "asked_at" not in call_json("recommend", folder / "without", "--user", "3")
    # All users, by parts, are asked at one moment; other moments are another scoring.
    moment = ["--at", "2030-01-01T08:00", "--k", "5"]
    call_json("score", folder / "with", "--out", tmp_path / "parts", *moment)
    (part,) = (tmp_path / "parts").glob("part-*")
    model = Recommender.load(folder / "with")
    assert pl.read_parquet(part).equals(model.recommend(at=1893502800, k=5))
    other = call(
        "score", folder / "with", "--out", tmp_path / "parts", "--at", "2030-01-01T20:00", "--k", "5"
    )
    assert other.returncode == 2
    assert (
        "no part" in call("score", folder / "without", "--out", tmp_path / "x", "--at", "1893502800").stderr
    )
    assert not (tmp_path / "x").exists()
    users = model._names.users.decode(range(3)).to_list()
    each = [1893502800, 1893502801, 1893546000]
    model.score(tmp_path / "each", users, at=each, part_users=2, k=4)
    wanted = model.recommend(users, at=each, k=4)
    assert pl.read_parquet(tmp_path / "each" / "part-*.parquet").equals(wanted)


@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        ("1893502800000", "looks like milliseconds: give seconds, 1893502800"),
        ("-99999999999", "outside the years"),
        ("9999-12-31T23:59", "outside the years"),
        ("0001-01-01", "outside the years"),
        ("20300101", "looks like a date: write 2030-01-01T08:30"),
        ("08:30", "names no day"),
    ],
)
def test_a_moment_out_of_range_is_one_line(folder: Path, moment: str, reason: str) -> None:
    result = call("recommend", folder / "with", "--user", "3", "--at", moment)
    assert (result.returncode, result.stdout) == (2, "")
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_users_clock_is_drawn_by_category(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "user.png"
    found = call_json("clock", folder / "with", "--user", "3", "--out", picture)
    assert picture.read_bytes().startswith(PNG)
    assert (found["kind"], set(found["labels"])) == ("category", {"coffee", "dinner", "music"})
    assert [row["hour"] for row in found["hours"]] == list(range(24))
    for row in found["hours"]:
        assert sum(row["shares"]) + row["prior"] == pytest.approx(1.0, abs=1e-5)
    assert len({tuple(round(share, 4) for share in row["shares"]) for row in found["hours"]}) > 12
    few = call_json("clock", folder / "with", "--user", "3", "--most", "1", "--out", tmp_path / "few.svg")
    assert few["labels"] == [found["labels"][0], "other"]
    shown = call("clock", folder / "with", "--user", "3")
    assert "coffee" in shown.stdout
    assert (folder / "with" / "plots" / "user-clock.png").read_bytes().startswith(PNG)


def test_hours_of_two_runs_are_drawn(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "hours.png"
    found = call_json("clock", folder / "with", "--against", folder / "without", "--out", picture)
    assert picture.read_bytes().startswith(PNG)
    assert len(found["hours"]) == 2
    for parts in found["hours"].values():
        assert sum(part["rows"] for part in parts.values()) == 60
    assert "requests" in call("clock", folder / "without").stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["clock", "without", "--user", "3"], "no interest clock"),
        (["clock", "with", "--user", "nobody"], "unknown user"),
        (["clock", "with", "--user", "3", "--most", "9"], "--most 9"),
        (["clock", "with", "--user", "3", "--against", "x"], "leave out --user"),
        (["clock", "with", "--user", "3", "--out", "x.gif"], "choose .png"),
        (["recommend", "without", "--user", "3", "--at", "1893502800"], "no part in this model's answers"),
        (["recommend", "with", "--user", "3", "--at", "teatime"], "is no moment"),
        (["recommend", "with", "--user", "3", "--time-zone", "Mars/Olympus"], "Mars/Olympus"),
        (["recommend", "with", "--history", "1,2"], "pass --times"),
    ],
)
def test_what_cannot_be_asked_is_one_line(folder: Path, arguments: list[str], reason: str) -> None:
    run = folder / arguments[1]
    result = call(arguments[0], run, *arguments[2:])
    assert result.returncode == 2
    assert reason in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_days_without_hours_and_logs_without_a_zone_are_refused(folder: Path, tmp_path: Path) -> None:
    log = pl.read_csv(folder / "log.csv")
    days = log.with_columns(pl.col("timestamp") // 86_400 * 86_400)
    for frame, name, options in ((days, "days", ["--time-zone", "UTC"]), (log, "nowhere", [])):
        frame.write_csv(tmp_path / f"{name}.csv")
        prepared = call("prepare", tmp_path / f"{name}.csv", *options, "--out", tmp_path / name)
        assert prepared.returncode == 0
        result = call("train", tmp_path / name, "--clock", "--out", tmp_path / f"{name}-run")
        assert result.returncode == 2
        assert ("days without hours" if name == "days" else "--time-zone") in result.stderr
        assert result.stderr.strip().count("\n") == 0
