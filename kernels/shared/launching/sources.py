"""What a kernel's machine code is made of: its source and that of every function it calls."""

import ast
import hashlib
import inspect
import textwrap
from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["source_digest"]


@cache
def source_digest(kernel: Any) -> str:
    """Return a hash of a Triton kernel's source, of the functions it calls and of the constants it reads.

    Comments, docstrings, layout and place in the file do not count, so that moving a kernel changes nothing.
    """
    hasher = hashlib.sha256()
    for name, text in sorted(_source_texts(kernel).items()):
        hasher.update(f"{name}\n{text}\n".encode())
    return hasher.hexdigest()


def _source_texts(kernel: Any) -> dict[str, str]:
    """Every function that is reached, by full name, with what it reads from its module."""
    found: dict[str, str] = {}
    waiting = [kernel.fn]
    while waiting:
        function = waiting.pop()
        name = f"{function.__module__}.{function.__qualname__}"
        if name in found:
            continue
        tree = _body(function)
        values = {}
        for label, value in _globals_read(tree, function):
            inner = getattr(value, "fn", None)
            if callable(inner):
                waiting.append(inner)
                values[label] = f"{inner.__module__}.{inner.__qualname__}"
            elif not callable(value) or hasattr(value, "value"):
                values[label] = repr(getattr(value, "value", value))  # a tl.constexpr holds a value
        found[name] = f"{ast.unparse(tree)}\n{sorted(values.items())}"
    return found


def _body(function: Any) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if ast.get_docstring(tree, clean=False) is not None:
        tree.body = tree.body[1:] or [ast.Pass()]
    return tree


def _globals_read(tree: ast.FunctionDef, function: Any) -> list[tuple[str, Any]]:
    """Names and `module.name` that resolve in the function's module; Triton's own and locals left out."""
    scope = function.__globals__ | inspect.getclosurevars(function).nonlocals
    read = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in scope:
            value, label = scope[node.id], node.id
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and isinstance(scope.get(node.value.id), ModuleType)
        ):
            value, label = getattr(scope[node.value.id], node.attr, None), f"{node.value.id}.{node.attr}"
        else:
            continue
        module = getattr(value, "__name__" if isinstance(value, ModuleType) else "__module__", "") or ""
        ours = callable(getattr(value, "fn", None)) or not module.startswith("triton.language.")
        if not isinstance(value, ModuleType) and (ours or hasattr(value, "value")):
            read.append((label, value))
    return read
