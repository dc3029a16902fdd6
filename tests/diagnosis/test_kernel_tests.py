from pathlib import Path
from typing import Any

import pytest

from recsys.diagnosis import kernel_tests as tried
from recsys.diagnosis.environment import compiled_code_folder, faiss, folders, processor, threads, versions
from recsys.kernels.shared.vector.tiles import tiles_available

ROOT = Path(__file__).parents[2]


def test_every_operation_is_tried_and_right() -> None:
    found = {test.operation: test for test in tried.kernel_tests() if test.backend == "cpu"}
    folders = {path.parent.name for path in (ROOT / "kernels").glob("*/reference.py")}
    assert set(found) == folders - (set() if tiles_available() else {"linear"})
    for test in found.values():
        assert test.passed, test
        assert test.error is not None
        assert test.error < 1e-4 or test.operation == "linear"


@pytest.mark.parametrize("fault", ["value", "shape", "nan", "raises"])
def test_a_wrong_kernel_is_told(fault: str) -> None:
    def run(backend: str, dtype: Any, device: Any) -> Any:
        right = tried._embedding(backend, dtype, device)
        if backend == "reference":
            return right
        if fault == "raises":
            raise RuntimeError("no such instruction\nat 0x0")
        out = right[0].detach().clone()
        out[3, 5] += 0.01 if fault == "value" else float("nan")
        return [out[:-1] if fault == "shape" else out, *right[1:]]

    test = tried._try("embedding", "cpu", run)
    assert not test.passed
    assert test.message == ("RuntimeError: no such instruction" if fault == "raises" else "")


def test_facts_of_this_machine() -> None:
    assert versions()["torch"]
    assert versions()["mamba_ssm"] is None or versions()["mamba_ssm"]
    assert processor()["vectors"].split()[0] in ("4", "8", "16")
    assert threads()["torch"] >= 1
    assert "exact" in faiss()["kinds"]
    assert all(folder["writable"] for folder in folders().values())
    assert compiled_code_folder() is not None
