"""Configurations of kernels that are tried: which there are, which fit, which is proposed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.benchmarks.gpu import candidates, tune
from recsys.benchmarks.gpu.candidates import neighbours, rewritten, rows_of, with_row
from recsys.benchmarks.kernels.case import Case
from recsys.errors import ArgumentError
from recsys.kernels.shared.launching.configs import choose_config, read_configs, trying
from recsys.kernels.shared.launching.machine_code import Resources

ROOT = Path(__file__).parents[2]
COMMITTED = {"BLOCK_N": 32, "HELD": 2, "num_warps": 1, "num_stages": 1}


def test_neighbours_differ_in_one_setting_or_in_two() -> None:
    first, *others = neighbours(COMMITTED, {})
    assert first == COMMITTED
    changed = [{k: v for k, v in each.items() if v != COMMITTED[k]} for each in others]
    assert changed == [
        {"BLOCK_N": 16},
        {"BLOCK_N": 64},
        {"num_warps": 2},
        {"num_stages": 2},
        {"BLOCK_N": 16, "num_warps": 2},
        {"BLOCK_N": 64, "num_warps": 2},
        {"BLOCK_N": 16, "num_stages": 2},
        {"BLOCK_N": 64, "num_stages": 2},
        {"num_warps": 2, "num_stages": 2},
    ]
    named = neighbours(COMMITTED, {"HELD": [1, 2, 4], "BLOCK_N": [], "num_warps": [1], "num_stages": [1]})
    assert [each["HELD"] for each in named] == [2, 1, 4]
    with pytest.raises(ArgumentError, match="setting 'HOLD' is not the kernel's: it has BLOCK_N, HELD"):
        neighbours(COMMITTED, {"HOLD": [1]})


def test_rows_are_found_by_operation_kernel_and_chip() -> None:
    assert [row.when for row in rows_of("bags/sum", "sm_90")] == ['{"width": 16}', '{"width": 32}', "{}"]
    with pytest.raises(ArgumentError, match="'bag' has no table of configurations"):
        rows_of("bag/sum", "sm_90")
    with pytest.raises(ArgumentError, match="has no sm_70: choose of sm_80, sm_90"):
        rows_of("bags/sum", "sm_70")
    with pytest.raises(ArgumentError, match="'bags/add': kernels/bags has sum"):
        rows_of("bags/add", "sm_90")


def test_a_table_is_tried_and_then_the_committed_one_holds_again() -> None:
    row = rows_of("bags/sum", "sm_90")[1]
    before = choose_config("bags", "sum", "sm_90", width=32)
    tried = {"BLOCK_T": 4, "BLOCK_D": 32, "num_warps": 2, "num_stages": 3}
    with trying("bags", with_row(row, tried)) as taken:
        config = choose_config("bags", "sum", "sm_90", width=32)
        assert (dict(config.blocks), config.num_warps, config.num_stages) == (
            {"BLOCK_T": 4, "BLOCK_D": 32},
            2,
            3,
        )
        assert choose_config("bags", "sum", "sm_90", width=16).num_warps == 1
        assert taken[0] is read_configs("bags", "sm_90")[row.place][2]
        assert len(taken) == 2
        choose_config("conv", "positions", "sm_90")
        assert len(taken) == 2
    assert choose_config("bags", "sum", "sm_90", width=32) == before
    assert before.num_warps == 1


def test_one_line_of_a_table_is_rewritten() -> None:
    row = rows_of("bags/sum", "sm_90")[1]
    text = (ROOT / "kernels/bags/configs.json").read_text()
    chosen = {"BLOCK_T": 4, "BLOCK_D": 32, "num_warps": 2, "num_stages": 3}
    new = rewritten(text, row, chosen, "some GPU")
    differing = [(a, b) for a, b in zip(text.splitlines(), new.splitlines(), strict=True) if a != b]
    assert len(differing) == 1
    found = json.loads(new)["sm_90"][1]
    assert found == {
        "kernel": "sum",
        "when": {"width": 32},
        "blocks": {"BLOCK_T": 4, "BLOCK_D": 32},
        "num_warps": 2,
        "num_stages": 3,
        "tuned_on": "some GPU",
    }
    assert json.loads(new)["sm_80"] == json.loads(text)["sm_80"]


def test_candidates_that_spill_or_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = rows_of("bags/sum", "sm_90")[1]

    def compiled(launch: Any, chip: str) -> Resources:
        constants = dict(launch.constants)
        if constants["BLOCK_T"] == 2:
            raise ValueError("no\nsuch block")
        return Resources(
            40, 16 if launch.num_warps == 2 else 0, 0, 300_000 if launch.num_stages == 2 else 1_000
        )

    monkeypatch.setattr(candidates, "compile_launch", compiled)

    def compiled_candidate(**changed: int) -> dict[str, Any]:
        return candidates._compile_candidate((row, json.dumps({**json.loads(row.committed), **changed})))

    assert compiled_candidate(BLOCK_T=4) == {"registers": 40, "spills": 0, "shared": 1_000}
    assert compiled_candidate(num_warps=2)["unfit"] == "spills 16 bytes a thread"
    assert compiled_candidate(num_stages=2)["unfit"] == "takes 300000 bytes of shared memory"
    assert compiled_candidate(BLOCK_T=2)["unfit"] == "ValueError: no such block"


def test_the_best_is_fastest_over_all_comparisons_by_more_than_noise() -> None:
    def case(**ratios: float) -> dict[str, Any]:
        return {"rivals": {name: {"ratio": {"median": ratio}} for name, ratio in ratios.items()}}

    name, gain = tune.best_of([case(a=0.5, b=0.9), case(a=2.0, b=0.9), case(b=0.9, c=0.1)])
    assert name == "b"
    assert gain == pytest.approx(1 / 0.9)
    assert tune.best_of([case(a=0.99)]) == (None, 1.0)
    assert tune.best_of([]) == (None, 1.0)


def test_a_candidate_with_another_result_is_refused() -> None:
    case = Case("some", "1", 1, "float32", "forward", 1, {})
    wanted = [torch.ones(3)]
    assert tune._refusal(case, lambda: torch.ones(3), wanted) is None
    assert "apart" in str(tune._refusal(case, lambda: torch.tensor([1.0, 1.0, 1.1]), wanted))
    assert "apart" in str(tune._refusal(case, lambda: torch.full((3,), torch.nan), wanted))

    def fails() -> torch.Tensor:
        raise ValueError("too\nlarge")

    assert tune._refusal(case, fails, wanted) == "ValueError: too large"


def test_a_dry_run_times_in_the_interpreter_and_changes_no_table(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "recsys.benchmarks.gpu.tune",
        "embedding/segments",
        "--dry",
        "--most",
        "2",
    ]
    before = (ROOT / "kernels/embedding/configs.json").read_bytes()
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--write"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "tune-embedding-segments.json").read_text())
    assert record["chip"] == "none, a dry run"
    narrow, _, other = record["rows"].values()
    assert narrow == {"cases": [], "best": None, "gain": 1.0}  # the comparisons are 64 wide
    (case,) = other["cases"]
    assert case["refused"] == {}
    assert list(case["rivals"]) == ["BLOCK_M=16 BLOCK_D=64 num_warps=4 num_stages=1"]
    assert [path.name for path in tmp_path.iterdir()] == ["tune-embedding-segments.json"]
    assert (ROOT / "kernels/embedding/configs.json").read_bytes() == before
