"""Triton's interpreter without what it does again at every operation: the same bits, sooner.

Every operation of a kernel makes types, shapes and constants anew, compares them entry by entry, and prepares
an overflow check that nothing reads (the interpreter has no `debug`); every launch looks for the functions of
the language. Here types and shapes of one kind share their parts, equal ones are known by that, scalars are
spread at once, and the rest runs as Triton wrote it.
"""

import dataclasses
from typing import Any

import numpy as np
import pytest
from triton.language import core
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

__all__ = ["quicken"]

_PATCHED: set[str] = set()
"""Modules whose view of the language has been patched, for good."""

_BLOCKS: dict[tuple[str, tuple[int, ...]], dict[str, Any]] = {}
_SHAPES: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}
_PLAIN = {int, float, bool, str, type(None), core.tensor, core.dtype, core.block_type, core.pointer_type}
_POINTER = np.dtype(np.uint64)

_unwrap = core._unwrap_if_constexpr
_block = core.block_type.__init__
_equal = core.dtype.__eq__
_broadcast = TritonSemantic.broadcast_impl_value
_numpy_type = interpreter._get_np_dtype
_patch = interpreter._patch_lang
_call = interpreter.InterpretedFunction.__call__


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch Triton until the end of a test."""
    unchecked = dataclasses.replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", unchecked)
    for owner, name, quick in (
        (core, "_unwrap_if_constexpr", _quick_unwrap),
        (core.block_type, "__init__", _quick_block),
        (core.tensor, "__init__", _quick_tensor),
        (core.dtype, "__eq__", _quick_equal),
        (TritonSemantic, "broadcast_impl_value", _quick_broadcast),
        (interpreter, "_get_np_dtype", _quick_numpy_type),
        (interpreter, "_patch_lang", _quick_patch),
        (interpreter.InterpretedFunction, "__call__", _quick_call),
    ):
        monkeypatch.setattr(owner, name, quick)


def _quick_unwrap(value: Any) -> Any:
    kind = type(value)
    if kind is core.constexpr:
        return value.value
    return value if kind in _PLAIN else _unwrap(value)


def _shape(sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """The one shape of a type, the one of its tensors, and their number of elements."""
    made = _SHAPES.get(sizes)
    if made is None:
        constants = core.tuple([core.constexpr(size) for size in sizes])
        made = (core.tuple(sizes), constants, core.constexpr(int(np.prod(sizes))))
        _SHAPES[sizes] = made
    return made


def _quick_block(self: Any, element_ty: Any, shape: Any) -> None:
    given = shape.values if type(shape) is core.tuple else shape
    sizes = tuple([size.value if type(size) is core.constexpr else size for size in given])
    key = (element_ty.name, sizes)
    parts = _BLOCKS.get(key)
    if parts is None:
        _block(self, element_ty, shape)
        self.shared = _shape(sizes)
        self.shape = self.shared[0]
        _BLOCKS[key] = dict(self.__dict__)
    else:
        self.__dict__.update(parts)


def _quick_tensor(self: Any, handle: Any, type: Any) -> None:
    self.handle = handle
    self.type = type
    self.dtype = type.scalar
    shared = type.__dict__.get("shared")
    if shared is None:  # a scalar, or a type made before Triton was patched
        shared = _shape(tuple(type.shape.values) if type.is_block() else ())
    _, self.shape, self.numel = shared


def _quick_equal(self: Any, other: Any) -> bool:
    return self is other or _equal(self, other)


def _quick_broadcast(self: Any, lhs: Any, rhs: Any) -> Any:
    left, right = lhs.type, rhs.type
    if left is right:
        return lhs, rhs
    if left.is_block():
        if not right.is_block():
            return lhs, _splat(rhs, left)
        if left.shape is right.shape:
            return lhs, rhs
    elif right.is_block():
        return _splat(lhs, right), rhs
    return _broadcast(self, lhs, rhs)


def _splat(scalar: Any, like: Any) -> Any:
    """A scalar at every place of a block of a type's shape."""
    handle = scalar.handle
    data = np.full(tuple(like.shape.values), handle.data, dtype=_quick_numpy_type(handle.dtype))
    kind = core.block_type(scalar.type.scalar, like.shape)
    return core.tensor(interpreter.TensorHandle(data, handle.dtype.scalar), kind)


def _quick_numpy_type(kind: Any) -> Any:
    if isinstance(kind, core.block_type):
        kind = kind.element_ty
    if isinstance(kind, core.pointer_type):
        return _POINTER
    made = _NUMPY_TYPES.get(kind.name)
    if made is None:
        made = _NUMPY_TYPES[kind.name] = _numpy_type(kind)
    return made


_NUMPY_TYPES: dict[str, Any] = {}


def _quick_patch(function: Any) -> Any:
    module = function.__module__
    if module not in _PATCHED:
        _PATCHED.add(module)
        _patch(function)
    return interpreter._LangPatchScope()


def _quick_call(self: Any, *args: Any, **options: Any) -> Any:
    if self.fn.__module__ in _PATCHED:
        return self.rewrite()(*args, **options)
    return _call(self, *args, **options)
