import re

import pytest
import torch

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.kernels import backend
from recsys.kernels.backend import choose_backend, prefer_backend


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_compiled_kernel_serves_the_processor(dtype: torch.dtype) -> None:
    assert choose_backend("scan", None, torch.zeros(1, dtype=dtype)) == "cpu"


def test_double_precision_is_the_references_work() -> None:
    assert choose_backend("scan", None, torch.zeros(1, dtype=torch.float64)) == "reference"


def test_a_device_without_a_kernel_gets_the_reference() -> None:
    assert choose_backend("scan", None, torch.zeros(1, device="meta")) == "reference"


def test_an_operation_without_a_compiled_module_gets_the_reference() -> None:
    assert choose_backend("no_such_operation", None, torch.zeros(1)) == "reference"


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_name_that_can_run_is_taken(name: str) -> None:
    assert choose_backend("scan", name, torch.zeros(1)) == name


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("gpu", torch.zeros(1), "scan: backend is 'gpu', use one of reference, cpu"),
        ("cpu", torch.zeros(1, device="meta"), "scan: backend 'cpu' needs cpu tensors, not meta"),
        ("cpu", torch.zeros(1, dtype=torch.float64), "not torch.float64: cast, or use backend='reference'"),
    ],
)
def test_a_name_that_cannot_run_is_refused_in_one_line(name: str, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)) as error:
        choose_backend("scan", name, tensor)
    assert "\n" not in str(error.value)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_MODULES", frozenset({("scan", "mamba-ssm")}))
    monkeypatch.setitem(backend._INSTALLED, "mamba-ssm", False)
    with pytest.raises(
        MissingDependencyError, match=re.escape("pip install 'recsys-engine[mamba]'")
    ) as error:
        choose_backend("scan", "mamba-ssm", torch.zeros(1))
    assert "\n" not in str(error.value)


def test_without_its_library_the_compiled_kernel_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backend._INSTALLED, "cpu", False)
    assert choose_backend("scan", None, torch.zeros(1)) == "reference"


def test_a_preferred_backend_serves_calls_that_name_none() -> None:
    with prefer_backend("reference"):
        assert choose_backend("scan", None, torch.zeros(1)) == "reference"
        assert choose_backend("scan", "cpu", torch.zeros(1)) == "cpu"
    assert choose_backend("scan", None, torch.zeros(1)) == "cpu"


def test_a_preferred_backend_that_an_operation_lacks_changes_nothing() -> None:
    with prefer_backend("cpu"):
        assert choose_backend("no_such_operation", None, torch.zeros(1)) == "reference"
    with prefer_backend("auto"):
        assert choose_backend("scan", None, torch.zeros(1)) == "cpu"


def test_an_unknown_preference_is_refused() -> None:
    with pytest.raises(ArgumentError, match="backend 'numpy' is not known"), prefer_backend("numpy"):
        pass
