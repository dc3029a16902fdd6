"""The one grammar of the operations' folders: who has read one finds the same names in the next."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from recsys.kernels.shared.backends import BACKENDS, BackendTable

KERNELS = Path(__file__).parents[2] / "kernels"
OPERATIONS = sorted(path.parent.name for path in KERNELS.glob("*/reference.py"))

# Numpy in, numpy out, on the calling thread: nothing to choose. `linear` follows a context, not a name.
WITHOUT_CHOICE = ("linear", "local_aggregation", "rescoring")


def _door(operation: str) -> ModuleType:
    return importlib.import_module(f"recsys.kernels.{operation}")


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in WITHOUT_CHOICE])
def test_every_backend_of_the_table_is_there(operation: str) -> None:
    table = _door(operation).BACKENDS
    assert isinstance(table, BackendTable)
    assert table.operation == operation
    loaded = [table.load(name) for name in table.names]
    assert len({id(implementation) for implementation in loaded}) == len(loaded)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_of_a_backend_is_in_the_table(operation: str) -> None:
    files = {path.stem.replace("_", "-") for path in (KERNELS / operation).glob("*.py")}
    table = getattr(_door(operation), "BACKENDS", None)
    names = ("reference", "cpu") if table is None else table.names
    assert set(names) == files & set(BACKENDS)
