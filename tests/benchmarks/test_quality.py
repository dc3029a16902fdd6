"""The comparison of whole trainings: pauses, curves, costs and reports, with sides that are made up."""

import io
import json
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.benchmarks.peers import quality
from recsys.benchmarks.peers.ours_quality import OurQualitySide
from recsys.benchmarks.peers.pace import Pace, converse
from recsys.benchmarks.peers.process import SideError
from recsys.benchmarks.peers.protocol import OurTask, Slice
from recsys.benchmarks.peers.quality_curves import Curve, Point, costs
from recsys.benchmarks.peers.quality_report import draw, print_tables, summary
from recsys.benchmarks.peers.quality_training import Ranking, train
from recsys.datasets.preparing.prepare import prepare


def _valid(kept: float, removed: float) -> dict[str, dict[str, float]]:
    return {"kept": {"hr@10": 0.5, "ndcg@10": kept}, "removed": {"hr@10": 0.5, "ndcg@10": removed}}


def _curve(side: str, *points: tuple[float, float]) -> Curve:
    curve = Curve(side=side, facts={"training_events": 100})
    for cpu, score in points:
        curve.add(
            Point(
                seconds=2 * cpu,
                cpu_seconds=cpu,
                events=int(10 * cpu),
                steps=1,
                peak_mib=100 + cpu,
                valid=_valid(score / 2, score),
            )
        )
    return curve


def test_a_curve_keeps_its_best_and_knows_when_to_stop() -> None:
    curve = _curve("some", (10, 0.1), (20, 0.3))
    assert curve.over(seconds=100, patience=25) == ""
    assert curve.over(seconds=20, patience=25) == "budget used up"
    for cpu, score in ((30, 0.2), (45, 0.3)):
        more = _curve("", (cpu, score)).points[0]
        assert not curve.add(more)
    assert curve.best is curve.points[1]
    assert curve.over(seconds=100, patience=25) == "no longer better"
    assert curve.epochs() == 4.5
    assert curve.reached(0.15) is curve.points[1]
    assert curve.reached(0.15, "kept") is curve.points[1]
    assert curve.reached(0.31) is None


def test_costs_are_taken_where_each_first_is_as_good_as_the_peer_at_its_best() -> None:
    ours = [_curve("fast", (1, 0.2), (2, 0.4), (9, 0.9)), _curve("weak", (1, 0.1))]
    rows = costs(ours, [_curve("peer", (10, 0.1), (20, 0.3), (30, 0.25))])
    removed = {row["side"]: row for row in rows if row["seen"] == "removed"}
    assert len(rows) == 4
    assert removed["fast"]["score"] == 0.3
    assert removed["fast"]["peer_needed"] == {"cpu_seconds": 20, "seconds": 40, "peak_mib": 120}
    assert removed["fast"]["ours_needed"]["cpu_seconds"] == 2
    assert removed["fast"]["times"]["cpu_seconds"] == 10
    assert removed["weak"]["ours_needed"] is removed["weak"]["times"] is None


class _Library:
    """A side whose training takes no time and which says what it was asked."""

    def __init__(self, steps: int) -> None:
        self.facts: dict[str, Any] = {"training_events": 10}
        self.measured: list[str] = []
        self._steps = steps

    def train(self, part: Slice, batch_size: int) -> None:
        part.restart_clock()
        for _ in range(self._steps):
            assert not part.count(batch_size, 1.0)

    def measure(self, split: str, path: str) -> dict[str, Any]:
        if path == "nowhere":
            raise ValueError("no such place\nat all")
        self.measured.append(split)
        return {"metrics": split}


def _converse(side: _Library, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    answers = io.StringIO()
    text = "".join(json.dumps(request) + "\n" for request in ({"op": "prepare", "task": {}}, *requests))
    converse(lambda task: side, io.StringIO(text), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_a_training_stands_still_while_it_is_measured() -> None:
    side = _Library(steps=3)
    go, measure = (
        {"op": "train", "every": 0.0, "batch_size": 4},
        {"op": "measure", "split": "valid", "path": ""},
    )
    facts, first, measured, second, third, ended = _converse(side, go, measure, go, go, go)
    assert facts["training_events"] == 10
    assert [answer["events"] for answer in (first, second, third, ended)] == [4, 8, 12, 12]
    assert [answer["ended"] for answer in (first, second, third, ended)] == [False, False, False, True]
    assert measured["metrics"] == "valid"
    assert side.measured == ["valid"]
    # The requests ended in a pause: training is left, without another word.
    assert len(_converse(_Library(steps=3), go)) == 2


def test_what_fails_in_a_side_is_one_line() -> None:
    *_, last = _converse(_Library(steps=1), {"op": "measure", "split": "test", "path": "nowhere"})
    assert last == {"error": "ValueError: no such place"}


def test_a_pause_is_not_timed() -> None:
    pace = Pace(lambda pace: time.sleep(0.2), every=0.0)
    pace.count(1)
    pace.stop_clock()
    began = pace.seconds
    pace.pause()
    pace.stop_clock()
    assert pace.seconds - began < 0.2
    assert pace.totals()["peak_mib"] > 0


class _Scripted:
    """A side process that answers from a list of validation scores, then fails or ends."""

    def __init__(self, scores: list[float], *, last: str = "") -> None:
        self.scores, self.last, self.closed, self.asked = scores, last, False, [""]
        self._trained = 0

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        self.asked.append(request.get("split", request["op"]))
        if request["op"] == "prepare":
            return {"training_events": 100, "task": request["task"]}
        if request["op"] == "measure":
            return {
                "metrics": _valid(0.0, self.scores[self._trained - 1]),
                "seconds": 1.0,
                "cpu_seconds": 0.5,
            }
        if self._trained == len(self.scores) and self.last == "fails":
            raise SideError("made up: it is out")
        ended = self._trained == len(self.scores)
        self._trained += 1
        at = 10.0 * self._trained
        return {
            "ended": ended,
            "seconds": at,
            "cpu_seconds": at,
            "set_up_cpu_seconds": 1.0,
            "events": 50 * self._trained,
            "steps": 1,
            "peak_mib": 7.0,
        }

    def close(self) -> None:
        self.closed = True


def _train(side: _Scripted, tmp_path: Path, *, seconds: float = 1000.0, patience: float = 1000.0) -> Curve:
    options = Namespace(seconds=seconds, every=1.0, patience=patience)
    curve = train("made up", lambda: side, {}, 1, options, _no_ranks(tmp_path))
    assert side.closed
    return curve


def _no_ranks(tmp_path: Path) -> Ranking:
    ranking = Ranking.__new__(Ranking)
    ranking.path = tmp_path / "states.npz"
    return ranking


def test_test_events_are_ranked_only_where_validation_is_best(tmp_path: Path) -> None:
    side = _Scripted([0.1, 0.3, 0.2, 0.25])
    curve = _train(side, tmp_path, patience=20)
    assert curve.stopped == "no longer better"
    assert [asked for asked in side.asked if asked in ("valid", "test")] == [
        *("valid", "test", "valid", "test"),
        *("valid", "valid"),
    ]
    assert curve.test["removed"]["ndcg@10"] == 0.3
    assert curve.evaluation["cpu_seconds"] >= 6 * 0.5
    assert curve.best is not None
    assert curve.best.cpu_seconds == 20


def test_a_training_ends_with_its_budget_its_epochs_or_a_failure(tmp_path: Path) -> None:
    assert _train(_Scripted([0.1, 0.2, 0.3]), tmp_path, seconds=20).stopped == "budget used up"
    assert _train(_Scripted([0.1]), tmp_path).stopped == "all epochs done"
    failed = _train(_Scripted([0.1], last="fails"), tmp_path)
    assert failed.failure == "made up: it is out"
    assert len(failed.points) == 1


def test_tables_and_picture_of_sides_of_which_one_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = _train(_Scripted([0.1, 0.3]), tmp_path), Curve(side="gone", failure="pip said no")
    own = _curve("ours (sasrec)", (5, 0.4))
    own.test = _valid(0.1, 0.2)
    sides = {curve.side: summary(curve) for curve in (own, good, bad)}
    result = {
        "log": {"name": "made", "users": 1, "items": 2, "events": 3},
        "selected_by": "validation",
        "threads": 1,
        "sides": sides,
        "costs": costs([own], [good]),
    }
    json.dumps(result)
    print_tables(result)
    shown = capsys.readouterr().err
    assert "gone: pip said no" in shown
    assert "4.0" in shown  # 20 seconds over 5
    draw(result, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    rows = [
        (user, item, place)
        for user in range(1, 13)
        for place, item in enumerate(rng.permutation(20)[: rng.integers(3, 9)] + 1)
    ]
    items = {old: new for new, old in enumerate(sorted({item for _, item, _ in rows}), 1)}
    np.save(tmp_path / "log.npy", np.array([(u, items[i], p) for u, i, p in rows], dtype=np.int64))
    return tmp_path / "log.npy"


def test_a_peers_vectors_are_ranked_by_the_logs_ids(log: Path, tmp_path: Path) -> None:
    rows = np.load(log)
    store = prepare(
        pl.DataFrame(rows, schema=["user_id", "item_id", "pos"]),
        tmp_path / "store",
        timestamp_column="pos",
        time_unit="order",
    )
    ranking = Ranking(store, tmp_path / "states.npz")
    items = int(rows[:, 1].max())
    last = np.append(np.flatnonzero(np.diff(rows[:, 0])), len(rows) - 1)
    for split, back in (("test", 0), ("valid", 1)):
        targets = rows[last - back, 1] - 1
        known = np.ones(items, dtype=bool)
        vectors, states = np.eye(items, dtype=np.float32), np.eye(items, dtype=np.float32)[targets]
        np.savez(ranking.path, states=states, items=vectors, known=known)
        found = ranking.measure(split)
        assert found["kept"]["ndcg@10"] == found["removed"]["ndcg@10"] == 1
        # Items that the library does not know are ranked last, whatever their vectors say.
        known[targets] = False
        np.savez(ranking.path, states=states, items=vectors, known=known)
        assert ranking.measure(split)["kept"]["ndcg@10"] < 0.5


def test_our_side_is_measured_after_each_epoch_with_its_averaged_weights(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    side = OurQualitySide(
        OurTask(log=str(log), encoder="sasrec", preset="tuned", seed=0, threads=1),
        {"d_model": 16, "n_layers": 1, "max_length": 8},
        {"epochs": 2},
    )
    found: list[tuple[int, dict[str, Any]]] = []

    def hold(pace: Pace) -> None:
        found.append((pace.events, side.measure("valid", "")["metrics"]))

    pace = Pace(hold, every=1.0)
    side.train(pace, 0)
    per_epoch = side.facts["training_events"]
    assert [events for events, _ in found] == [per_epoch, 2 * per_epoch]
    assert side.facts["settings"]["encoder"]["repeat_bias"] == 8
    assert all(0 <= metrics["kept"]["ndcg@10"] <= 1 for _, metrics in found)


def test_unknown_names_and_folders_are_a_users_error(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--log", str(log), "--workdir", str(log.parent)]
    for wrong in (
        ["--peers", "spotlight"],
        ["--ours", ""],
        ["--seconds", "0"],
        ["--out", "/no/where/x.json"],
    ):
        assert quality.main([*common, *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
