"""The one grammar of the operations' folders: who has read one finds the same names in the next."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from recsys.kernels.shared.backends import BACKENDS, BackendTable

KERNELS = Path(__file__).parents[2] / "kernels"
OPERATIONS = sorted(path.name for path in KERNELS.iterdir() if (path / "__init__.py").exists())
OPERATIONS.remove("shared")

# Numpy in, numpy out, on the calling thread: nothing to choose. `linear` follows a context, not a name.
WITHOUT_CHOICE = ("linear", "local_aggregation", "rescoring")

# A file that imports one of these belongs to a side, and its name begins with it.
SIDES = {
    "cpu": ("numba", "llvmlite", "recsys.kernels.shared.vector", "recsys.kernels.shared.threads"),
    "triton": ("triton", "recsys.kernels.shared.triton_", "recsys.kernels.shared.launching"),
}


def _door(operation: str) -> ModuleType:
    return importlib.import_module(f"recsys.kernels.{operation}")


def _files(operation: str) -> list[str]:
    return sorted(path.stem for path in (KERNELS / operation).glob("*.py"))


def _side(name: str) -> str | None:
    return next((side for side in SIDES if name == side or name.startswith(f"{side}_")), None)


@cache
def _imports(path: Path) -> frozenset[str]:
    """Modules that a file imports; of `from a import b` both a and a.b, for b may be a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in WITHOUT_CHOICE])
def test_every_backend_of_the_table_is_there(operation: str) -> None:
    table = _door(operation).BACKENDS
    assert isinstance(table, BackendTable)
    assert table.operation == operation
    loaded = [table.load(name) for name in table.names]
    assert len({id(implementation) for implementation in loaded}) == len(loaded)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_of_a_backend_is_in_the_table(operation: str) -> None:
    table = getattr(_door(operation), "BACKENDS", None)
    names = ("reference", "cpu") if table is None else table.names
    assert set(names) == {name.replace("_", "-") for name in _files(operation)} & set(BACKENDS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_door_says_which_file_is_read_first(operation: str) -> None:
    words = " ".join((_door(operation).__doc__ or "").split())
    order = re.search(r"Read `reference` first, (?:.*?)\.(?: |$)", words)
    assert order is not None, words
    named = [name for name in re.findall(r"`(\w+)`", order[0]) if name != operation]
    assert len(named) > 1
    assert set(named) <= set(_files(operation)), named


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_of_one_side_bears_its_name(operation: str) -> None:
    for name in _files(operation):
        if name in ("__init__", "compile_cases"):  # the door loads all sides; the cases launch kernels
            continue
        imports = _imports(KERNELS / operation / f"{name}.py")
        for side, libraries in SIDES.items():
            if any(module.startswith(libraries) for module in imports):
                assert _side(name) == side, f"{operation}/{name}.py imports what is {side}'s: {side}_{name}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_file_without_a_side_serves_more_than_one(operation: str) -> None:
    table = getattr(_door(operation), "BACKENDS", None)
    backends = {name.replace("-", "_") for name in (table.names if table else ("reference",))}
    for name in set(_files(operation)) - backends - {"__init__", "call", "checks", "compile_cases"}:
        if _side(name) is not None:
            continue
        full = f"recsys.kernels.{operation}.{name}"
        users = {
            other
            for other in _files(operation)
            if other != name and full in _imports(KERNELS / operation / f"{other}.py")
        }
        sides = {_side(other) for other in users - {"compile_cases"}}
        assert len(sides) > 1 or sides == {None}, f"{operation}/{name}.py serves {sides} alone: its prefix"


def test_the_shared_folder_imports_no_operation() -> None:
    doors = tuple(f"recsys.kernels.{name}" for name in OPERATIONS)
    for path in (KERNELS / "shared").rglob("*.py"):
        assert not [module for module in _imports(path) if module.startswith(doors)], path


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_belongs_to_an_operation_is_there(operation: str) -> None:
    tests = Path(__file__).parent
    assert (tests / f"test_{operation}.py").exists()
    has_kernels = "triton" in _files(operation)
    for path in (KERNELS / operation / "compile_cases.py", KERNELS / operation / "configs.json"):
        assert path.exists() == has_kernels, path
    assert (tests / f"test_{operation}_triton.py").exists() == has_kernels
