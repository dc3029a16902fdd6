"""The stages of a GPU run where there is no GPU: that they run, go on, and claim what their records say."""

import argparse
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from recsys.benchmarks.gpu import __main__ as program
from recsys.benchmarks.gpu import carry, comparisons, kernel_tests, stage
from recsys.benchmarks.gpu.bars import bars, lines
from recsys.benchmarks.gpu.faiss import blocks_top_k
from recsys.benchmarks.gpu.launches import Launch, tabulate
from recsys.benchmarks.gpu.loss_rivals import chunk_loop
from recsys.benchmarks.gpu.records import DRY, Record, bundle, digest_of, read_records, unbundle
from recsys.benchmarks.gpu.stages import STAGES, Scale, Stage, Task, chosen
from recsys.benchmarks.gpu.vectors import clusters
from recsys.benchmarks.kernels import cases_of
from recsys.benchmarks.kernels.measuring import same_bits
from recsys.errors import ArgumentError, RunError

CPU = torch.device("cpu")
SCALE = Scale(CPU, dry=True, seconds=0.0)
TOPK = STAGES["topk"]


@pytest.mark.slow
def test_every_stage_runs_dry_and_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--dry", "--out", str(tmp_path), "--datasets", str(tmp_path / "none"), "--seconds", "300"]
    monkeypatch.setattr(sys, "argv", ["gpu", *arguments])
    assert program.main() == 0, capsys.readouterr().out
    records = read_records(tmp_path / "dry")
    assert list(STAGES) == [name for name in STAGES if name in records]
    for name, record in records.items():
        assert record["finished"], name
        assert record["chip"] == DRY
        assert record["cases"], name
        for case in record["cases"].values():
            assert "error" not in case, (name, case)
            assert case.get("same_bits", True), case
            assert case.get("passed", True), case
            assert not case.get("failures"), case
    topk = next(iter(records["topk"]["cases"].values()))
    assert set(topk["steps_ms"]) == {"prefilter", "choice of tiles", "refine", "merge"}
    assert topk["rows_in_doubt"] == 0
    for case in records["losses"]["cases"].values():
        assert max(case["apart"]["torch loop, 16 rows"].values()) < 1e-5
    step = records["step"]["cases"]["mamba, 128 events"]["launches"]
    assert step["launches"] > 50
    assert 0.99 < sum(row["share"] for row in step["rows"]) + step["others_ms"] / step["busy_ms"] < 1.01
    shown = capsys.readouterr().out
    assert "NOT met" not in shown
    assert "\nmet:" not in shown
    assert shown.count("a dry run: no claim") == len(STAGES)


def _tasks(counts: dict[str, int], broken: str = "") -> list[Task]:
    def task(name: str) -> Task:
        def measure() -> dict[str, Any]:
            counts[name] = counts.get(name, 0) + 1
            if name == broken:
                raise ValueError("no\nsuch thing")
            return {"value": name}

        return Task(name, measure, measure)

    return [task(name) for name in ("a", "b", "c")]


def test_a_stage_goes_on_behind_what_has_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    monkeypatch.setattr(stage, "tasks_of", lambda *_: iter(_tasks(counts, broken="b")))
    assert stage.run_stage(TOPK, tmp_path, SCALE) == 1
    record = read_records(tmp_path)["topk"]
    assert record["cases"] == {
        "a": {"value": "a"},
        "b": {"error": "ValueError: no such thing"},
        "c": {"value": "c"},
    }
    assert record["finished"]
    del record["cases"]["c"]
    (tmp_path / "topk.json").write_text(json.dumps(record))
    monkeypatch.setattr(stage, "tasks_of", lambda *_: iter(_tasks(counts)))
    stage.run_stage(TOPK, tmp_path, SCALE)
    assert counts == {"a": 1, "b": 1, "c": 2}
    assert stage.run_stage(TOPK, tmp_path, SCALE, fresh=True) == 0
    assert counts == {"a": 2, "b": 2, "c": 3}
    record["digest"] = "of other code"
    (tmp_path / "topk.json").write_text(json.dumps(record))
    stage.run_stage(TOPK, tmp_path, SCALE)
    assert counts == {"a": 3, "b": 3, "c": 4}


def test_what_has_no_time_is_left_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    monkeypatch.setattr(stage, "tasks_of", lambda *_: iter(_tasks(counts)))
    none = Stage("topk", "", TOPK.sources, seconds=-1)
    assert stage.run_stage(none, tmp_path, SCALE) == 0
    record = read_records(tmp_path)["topk"]
    assert (record["finished"], record["left_out"], counts) == (False, ["a", "b", "c"], {})
    assert lines({"topk": record})[0] == (
        "topk: 0 cases, 3 left for the next call, not finished, a dry run: no claim"
    )


def test_a_case_that_did_not_end_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    monkeypatch.setattr(stage, "tasks_of", lambda *_: iter(_tasks(counts)))
    record = Record(tmp_path, TOPK, DRY)
    record.keep("a", {"value": "a"})
    record.note(began="b")  # and then its process was ended
    assert stage.run_stage(TOPK, tmp_path, SCALE) == 1
    found = read_records(tmp_path)["topk"]
    assert found["cases"]["b"] == {"error": "did not end in an earlier call"}
    assert counts == {"c": 1}
    assert stage.run_stage(TOPK, tmp_path, SCALE, fresh=True, until=0.0) == 0
    assert read_records(tmp_path)["topk"]["left_out"] == ["a", "b", "c"]


def test_an_operation_whose_cases_cannot_be_made_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_case() -> Any:
        raise ValueError("no such mask")

    def cases(*_: object) -> Iterator[Any]:
        yield no_case()

    def choose(name: str) -> Any:
        return cases if name == "scan" else cases_of(name)

    monkeypatch.setattr("recsys.benchmarks.gpu.comparisons.cases_of", choose)
    first, *others = comparisons.comparisons(("scan", "embedding"), SCALE)
    assert first.name == "scan, its further cases"
    with pytest.raises(ValueError, match="no such mask"):
        first.measure()
    assert [task.name.split()[0] for task in others] == ["embedding", "embedding"]


def test_a_lost_gpu_ends_the_process_behind_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    monkeypatch.setattr(stage, "tasks_of", lambda *_: iter(_tasks(counts, broken="a")))
    monkeypatch.setattr(stage, "lost", lambda device: True)
    assert stage.run_stage(TOPK, tmp_path, SCALE) == stage.AGAIN
    assert stage.run_stage(TOPK, tmp_path, SCALE) == 1
    assert counts == {"a": 1, "b": 1, "c": 1}


def test_a_digest_is_of_code_and_tables(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/code.py").write_text("x = 1\n")
    (tmp_path / "two.json").write_text("{}")
    first = digest_of(["one", "two.json"], tmp_path)
    (tmp_path / "one/notes.md").write_text("words")
    assert digest_of(["one", "two.json"], tmp_path) == first
    (tmp_path / "one/code.py").write_text("x = 2\n")
    assert digest_of(["one", "two.json"], tmp_path) != first
    with pytest.raises(RunError, match="three: is not there"):
        digest_of(["three"], tmp_path)
    for each in STAGES.values():
        digest_of(each.sources)


def test_records_travel_in_one_file(tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    Record(there, TOPK, DRY).keep("a", {"value": 1})
    bundle(there, tmp_path / "gpu.tar")
    assert unbundle(tmp_path / "gpu.tar", back) == ["topk.json"]
    assert Record(back, TOPK, DRY).cases == {"a": {"value": 1}}
    assert Record(back, TOPK, "another chip").cases == {}
    assert unbundle(tmp_path / "gpu.tar", back) == []  # what is there is newer
    with tarfile.open(tmp_path / "gpu.tar", "w") as tar:
        tar.add(there / "topk.json", arcname="../../outside.json")
    assert unbundle(tmp_path / "gpu.tar", back) == ["outside.json"]
    assert (back / "outside.json").exists()
    (tmp_path / "gpu.tar").write_bytes(b"no tar")
    with pytest.raises(RunError, match="is no bundle"):
        unbundle(tmp_path / "gpu.tar", back)


def _record(name: str, cases: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"stage": name, "chip": "some GPU", "finished": True, "cases": cases, **facts}


def _entry(operation: str, shape: str, rivals: dict[str, float], **facts: Any) -> dict[str, Any]:
    sides = {name: {"ratio": {"median": ratio}} for name, ratio in rivals.items()}
    head = {
        "operation": operation,
        "shape": shape,
        "direction": "forward",
        "d_model": 64,
        "dtype": "bfloat16",
    }
    return {**head, "events": 64, "rivals": sides, "same_bits": True, **facts}


def test_bars_say_what_is_met_what_is_not_and_what_is_open() -> None:
    torch_side, loop = "torch, matmul and topk", "torch loop, 256 rows"
    waited = {"rivals": {torch_side: {"ratio": {"median": 1.5}}}}
    losses = {
        "a": _entry(
            "cross_entropy", "8 rows, 100,000 items", {"Liger": 3.5, loop: 1.4, "Apple CCE, exact": 2.0}
        ),
        "b": _entry(
            "cross_entropy",
            "8 rows, 10,000 items",
            {"Liger": 3.1, loop: 0.9},
            peak_mib={"ours": 2.0, loop: 2.5},
        ),
    }
    limit = {"by": "memory", "fraction": 0.7}
    records = {
        "tests": _record(
            "tests", {"t": {"outcome": "passed"}, "u": {"outcome": "skipped"}}, calls=1, in_one_call=True
        ),
        "topk": _record(
            "topk", {"a": _entry("ranking, top k", "100 of 9 items for 64", {torch_side: 2.5}, wall=waited)}
        ),
        "losses": _record("losses", losses),
        "scan": _record(
            "scan",
            {
                "a": _entry("scan", "ml-1m (2 x 3)", {"mamba-ssm, already padded": 1.4}, limit=limit),
                "b": _entry(
                    "scan", "ml-1m (2 x 3)", {}, direction="backward", limit={"by": "x", "fraction": 0.3}
                ),
                "c": {"error": "lost"},
            },
        ),
        "epochs": _record(
            "epochs",
            {
                "own": {
                    "encoder": "mamba",
                    "log": "made",
                    "epoch_s": {"median": 3.0},
                    "peak_memory_mib": 100.0,
                },
                "large": {
                    "encoder": "mamba",
                    "log": "made",
                    "epoch_s": {"median": 1.5},
                    "peak_memory_mib": 100.0,
                },
            },
        ),
    }
    found = {bar.wanted: bar for bar in bars(records)}
    met = {wanted: bar.met for wanted, bar in found.items()}
    assert met == {
        "all tests of the kernels pass in one call": True,
        "top-k, k 100, never slower than torch": True,
        "top-k, k 100, twice torch at 64 to 4,096": False,
        "linear CE, d 64: 3 times Liger": True,
        "linear CE, d 64, V 10^5 and 10^6: 1.5 times the best of CCE and a tuned loop": False,
        "linear CE, d 64: memory no higher than the least of the others": True,
        "scan, jagged: 1.3 times mamba-ssm": True,
        "scan, dense: as fast as mamba-ssm": None,
        "scan, backward: 40% of its limit": False,
        "attention: as fast as flash, padded or packed": None,
        "attention with time bias: 3 times FlexAttention": None,
        "bound by memory: 60% of bandwidth": True,
        "the same bits in 20 runs, every kernel": True,
        "an epoch of every encoder on ML-1M's shape: 2 s and 2 GB at most": True,
    }
    assert found["top-k, k 100, never slower than torch"].seen == "1.50 at least (batch 64); 1 of 1"
    assert (
        "mamba on made 1.50 s, 0.10 GB"
        in found["an epoch of every encoder on ML-1M's shape: 2 s and 2 GB at most"].seen
    )
    losses["b"]["same_bits"] = False
    assert {bar.wanted: bar.met for bar in bars(records)}["the same bits in 20 runs, every kernel"] is False
    assert "scan: 3 cases, 1 FAILED" in lines(records)
    assert {bar.met for bar in bars({})} == {None}


def test_launches_add_up_and_gaps_are_what_no_launch_covers() -> None:
    found = tabulate(
        [
            Launch("wide", 0.0, 10.0),
            Launch("narrow", 5.0, 15.0),  # on another stream, at the same time
            Launch("Memcpy HtoD", 20.0, 21.0),
            Launch("wide", 41.0, 50.0),
        ],
        calls=2,
    )
    assert (found["launches"], found["copies"]) == (2.0, 0.5)
    assert found["span_ms"] == pytest.approx(0.025)
    assert found["busy_ms"] == pytest.approx((15 + 1 + 9) / 2e3)
    assert found["gaps_ms"] == pytest.approx(0.0125)
    assert found["gap_share"] == pytest.approx(0.5)
    assert [row["name"] for row in found["rows"]] == ["wide", "narrow", "Memcpy HtoD"]
    assert found["rows"][0]["share"] == pytest.approx(19 / 30)
    assert tabulate([], calls=3)["launches"] == 0


def test_the_loop_over_chunks_has_the_gradients_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(11, 5, generator=generator).requires_grad_()
    weight = torch.randn(7, 5, generator=generator).requires_grad_()
    targets = torch.arange(11) % 7
    wanted = torch.autograd.grad(F.cross_entropy(hidden @ weight.T, targets), (hidden, weight))
    found = chunk_loop(hidden.detach(), weight.detach(), targets, 4)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_blocks_of_items_have_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.benchmarks.gpu.faiss.BLOCK", 7)
    table, asked = clusters(40, 3, CPU)
    scores, ids = blocks_top_k(asked, table, 9)
    wanted = (asked @ table.T).topk(9)
    torch.testing.assert_close(scores, wanted.values)
    assert torch.equal(ids, wanted.indices)


def test_one_other_bit_is_seen() -> None:
    answers: Iterator[torch.Tensor] = iter([torch.tensor([0.0, torch.nan]), torch.tensor([-0.0, torch.nan])])
    assert same_bits(lambda: torch.tensor([0.0, torch.nan]), 3)
    assert not same_bits(lambda: next(answers), 1)


def test_tests_that_passed_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = tmp_path / "test_some.py"
    text = "def test_a():\n    pass\n\n\ndef test_b():\n    assert {}\n"
    plain = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    plain += ["-p", "recsys.benchmarks.gpu.pytest_outcomes", str(tests)]
    monkeypatch.setattr(kernel_tests, "_program", lambda scale: plain)
    monkeypatch.setattr(kernel_tests, "ROOT", Path(__file__).parents[2])
    tests.write_text(text.format(0))
    record = Record(tmp_path / "out", STAGES["tests"], DRY)
    assert kernel_tests.run_tests(record, SCALE, 100.0) == 1
    assert {name.split("::")[-1]: entry["outcome"] for name, entry in record.cases.items()} == {
        "test_a": "passed",
        "test_b": "failed",
    }
    assert record.body["in_one_call"]
    tests.write_text(text.format(1).replace("pass\n", "raise AssertionError\n"))  # not run again
    assert kernel_tests.run_tests(record, SCALE, 100.0) == 0
    assert {entry["outcome"] for entry in record.cases.values()} == {"passed"}
    assert (record.body["calls"], record.body["in_one_call"]) == (2, False)


def test_a_program_that_outlives_its_time_is_ended_with_its_children(tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    log = tmp_path / "log.txt"
    assert program.run_process(["-c", "print('said')"], 30, log) == 0
    assert program.run_process(["-c", "raise SystemExit(3)"], 30, log) == 3
    assert program.run_process(["-c", child], 1, log) is None
    assert "said" in log.read_text()


def test_stages_follow_while_there_is_time_and_go_on_after_a_lost_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int | None] = [stage.AGAIN, 0, None]
    programs = []

    def run(command: list[str], seconds: float, log: Path) -> int | None:
        programs.append((command[2], "--fresh" in command, seconds))
        return codes.pop(0)

    monkeypatch.setattr(program, "run_process", run)
    stages = chosen("topk,losses")
    options = argparse.Namespace(datasets=tmp_path, dry=False, fresh=True, seconds=400.0)
    assert not program.run_stages(stages, options, tmp_path, tmp_path / "log.txt")
    # After a lost GPU what was measured stands: only the first process begins afresh.
    assert [each[:2] for each in programs] == [("topk", True), ("topk", False), ("losses", True)]
    assert all(seconds == pytest.approx(330, abs=5) for *_, seconds in programs)
    options.seconds = 10.0
    assert not program.run_stages(stages, options, tmp_path, tmp_path / "log.txt")
    assert len(programs) == 3
    shown = capsys.readouterr().out
    assert "topk: the GPU was lost: again" in shown
    assert "losses: out of time" in shown
    assert "losses: no time left for it in this call" in shown


def test_rivals_are_unpacked_and_found_behind_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "some-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_carried_rival/__init__.py", "VALUE = 7\n")
    carry.carry_wheels([wheel], tmp_path / "carry/rivals")
    carry.carry_wheels([wheel], tmp_path / "carry/rivals")  # in place of what was there
    assert [path.name for path in (tmp_path / "carry").iterdir()] == ["rivals"]
    assert carry.size_of(tmp_path / "carry") == 10
    monkeypatch.setattr(sys, "path", list(sys.path))
    carry.add_carried(tmp_path / "carry")
    assert sys.path[-1] == str(tmp_path / "carry/rivals")
    wheel.write_bytes(b"no wheel")
    with pytest.raises(RunError, match="is not a wheel"):
        carry.carry_wheels([wheel], tmp_path / "carry/rivals")
    assert carry.size_of(tmp_path / "carry") == 10


def test_stages_keep_their_order_and_unknown_ones_are_refused() -> None:
    assert [each.name for each in chosen("scan, tests")] == ["tests", "scan"]
    assert [each.name for each in chosen(None)] == list(STAGES)
    with pytest.raises(ArgumentError, match="stage 'skan' is not known: choose of tests, topk"):
        chosen("skan")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "recsys.benchmarks.gpu", "--stages", "topk", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "Error: PyTorch finds no GPU here; --dry runs all stages on the CPU\n"
