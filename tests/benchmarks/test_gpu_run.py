import json
import sys
from pathlib import Path

import pytest
import torch

from recsys.benchmarks import gpu_run
from recsys.benchmarks.gpu_run import Stage, run_stage, stages, summary


def test_the_stages_fit_into_one_call(tmp_path: Path) -> None:
    found = stages(tmp_path, tmp_path / "nothing")
    assert [stage.name for stage in found] == ["tests", "kernels", "retrieval", "training"]
    assert sum(stage.seconds for stage in found) < 9 * 60
    tests = found[0].arguments
    assert "tests/kernels/test_on_device.py" in tests
    assert {
        f"tests/kernels/{path.name}" for path in (gpu_run.ROOT / "tests/kernels").glob("*_triton.py")
    } < set(tests)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.json").write_text("{}")
    several = stages(tmp_path, tmp_path)
    assert [stage.name for stage in several[3:]] == ["training on one", "training on two"]
    assert sum(stage.seconds for stage in several) < 9 * 60
    assert [stage.name for stage in stages(tmp_path, tmp_path, "kernels")] == ["kernels"]


def test_a_stage_passes_fails_or_runs_out_of_time(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    records = [
        run_stage(Stage("good", ("-c", "print('said')"), 30), log),
        run_stage(Stage("bad", ("-c", "raise SystemExit(3)"), 30), log),
        run_stage(Stage("slow", ("-c", child), 1), log),
    ]
    assert [record["result"] for record in records] == ["passed", "failed with 3", "out of time"]
    assert records[2]["seconds"] < 20
    assert "said" in log.read_text()
    training = {"benchmark": "train", "machine": {"cpu": "some", "threads": 1, "torch": "2"}, "commit": "x"}
    (tmp_path / "training.json").write_text(json.dumps(training))
    times = {"ours": {"p50_ms": 0.25}, "torch": {"p50_ms": 0.5}}
    speeds = [{"batch": 8, "ms": times, "steps": {"prefilter": {"p50_ms": 0.1}}}]
    search = {**training, "benchmark": "exact search", "k": 100, "items": 1_000_000, "speeds": speeds}
    (tmp_path / "retrieval-gpu.json").write_text(json.dumps(search))
    shown = summary(records, tmp_path)
    assert "100 of 1,000,000 items for 8: ours 0.25 ms, torch 0.5 ms; steps: prefilter 0.1" in shown
    assert shown[0].startswith("good: passed in ")
    assert "training.json:" in shown
    assert any(line.startswith("train on some") for line in shown)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_run"])
    assert gpu_run.main() == 2
    assert "PyTorch finds no GPU here" in capsys.readouterr().err
