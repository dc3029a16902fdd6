"""`recsys doctor` and `recsys warm-up` as a user meets them."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest

from recsys.commands.app import main
from recsys.diagnosis import kernel_tests
from recsys.diagnosis.kernel_tests import KernelTest


def _recsys(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    sys.argv = ["recsys", *map(str, arguments)]
    with pytest.raises(SystemExit) as left:
        main()
    return (int(left.value.code or 0), *capsys.readouterr())


def test_doctor_tells_of_a_wrong_kernel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = KernelTest("scan", "cpu", True, 1e-7, 0.1), KernelTest("conv", "cpu", False, 0.5, 0.1)
    for tests, code in (([right], 0), ([right, wrong], 1)):
        monkeypatch.setattr(kernel_tests, "kernel_tests", lambda tests=tests: iter(tests))
        found, out, err = _recsys(capsys, "doctor", "--json")
        assert found == code, err
        facts = json.loads(out)
        assert facts["passed"] is (code == 0)
        assert facts["kernels"][0]["operation"] == "scan"
        assert {"versions", "processor", "threads", "faiss", "gpu", "folders"} < set(facts)
    assert err == "Wrong: conv on cpu: differs from its definition\n"
    _, out, _ = _recsys(capsys, "doctor", "--no-tests")
    assert "compiled kernels: " in out
    assert "scan" not in out


def test_warm_up_answers_as_a_service_would(
    tmp_path: Path, log: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write_csv(tmp_path / "log.csv")
    small = ("--set=training.epochs=1", "--set=encoder.d_model=16", "--set=training.batch_events=256")
    code, _, err = _recsys(capsys, "train", tmp_path / "log.csv", "--out", tmp_path / "run", *small)
    assert code == 0, err
    code, out, err = _recsys(capsys, "warm-up", tmp_path / "run", "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert facts["compiled_code_is_kept"] is True
    assert "live users" in facts["answered"]
