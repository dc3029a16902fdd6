import re
from collections.abc import Callable

import pytest
import torch

from recsys.errors import ArgumentError, MissingDependencyError
from recsys.kernels.scan import BACKENDS as SCAN
from recsys.kernels.shared import backends
from recsys.kernels.shared.backends import BackendTable, prefer_backend


def _made_up(**loaders: Callable[[], str]) -> BackendTable[str]:
    return BackendTable("doubling", {"reference": lambda: "definition", **loaders})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_compiled_kernel_serves_the_processor(dtype: torch.dtype) -> None:
    assert SCAN.choose(None, torch.zeros(1, dtype=dtype)) == "cpu"


def test_double_precision_is_the_references_work() -> None:
    assert SCAN.choose(None, torch.zeros(1, dtype=torch.float64)) == "reference"


def test_a_device_without_a_kernel_gets_the_reference() -> None:
    assert SCAN.choose(None, torch.zeros(1, device="meta")) == "reference"


def test_an_operation_without_a_compiled_kernel_gets_the_reference() -> None:
    assert _made_up().choose(None, torch.zeros(1)) == "reference"


def test_what_is_chosen_is_what_is_called() -> None:
    table = _made_up(cpu=lambda: "kernel")
    assert table.names == ("reference", "cpu")
    assert table.load(table.choose(None, torch.zeros(1))) == "kernel"
    assert table.load(table.choose("reference", torch.zeros(1))) == "definition"


def test_a_backend_that_is_not_in_the_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # There is no way to the definition under another backend's name: neither by a name nor by a loader.
    table = _made_up(cpu=lambda: "kernel")
    with pytest.raises(ArgumentError, match=r"doubling: backend is 'triton', use one of reference, cpu"):
        table.choose("triton", torch.zeros(1))
    with pytest.raises(KeyError):
        table.load("triton")


@pytest.mark.parametrize("names", [("cpu",), ("reference", "gpu")])
def test_a_table_names_its_definition_and_known_backends(names: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError, match="doubling: backends are"):
        BackendTable("doubling", {name: lambda: "kernel" for name in names})


def test_a_loader_of_a_missing_module_fails_where_it_is_called() -> None:
    def load() -> str:
        from recsys.kernels.scan import no_such_backend  # type: ignore[attr-defined]

        return str(no_such_backend)

    table = _made_up(cpu=load)
    with pytest.raises(ImportError, match="no_such_backend"):
        table.load(table.choose(None, torch.zeros(1)))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_name_that_can_run_is_taken(name: str) -> None:
    assert SCAN.choose(name, torch.zeros(1)) == name


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
        SCAN.choose(name, tensor)
    assert "\n" not in str(error.value)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends._INSTALLED, "mamba-ssm", False)
    with pytest.raises(
        MissingDependencyError, match=re.escape("pip install 'recsys-engine[mamba]'")
    ) as error:
        SCAN.choose("mamba-ssm", torch.zeros(1))
    assert "\n" not in str(error.value)


def test_without_its_library_the_compiled_kernel_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends._INSTALLED, "cpu", False)
    assert SCAN.choose(None, torch.zeros(1)) == "reference"


def test_a_preferred_backend_serves_calls_that_name_none() -> None:
    with prefer_backend("reference"):
        assert SCAN.choose(None, torch.zeros(1)) == "reference"
        assert SCAN.choose("cpu", torch.zeros(1)) == "cpu"
    assert SCAN.choose(None, torch.zeros(1)) == "cpu"


def test_a_preferred_backend_that_an_operation_lacks_changes_nothing() -> None:
    with prefer_backend("cpu"):
        assert _made_up().choose(None, torch.zeros(1)) == "reference"
    with prefer_backend("auto"):
        assert SCAN.choose(None, torch.zeros(1)) == "cpu"


def test_an_unknown_preference_is_refused() -> None:
    with pytest.raises(ArgumentError, match="backend 'numpy' is not known"), prefer_backend("numpy"):
        pass
