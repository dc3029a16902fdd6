"""Record launches instead of running them, so that they can be compiled for chips that are not here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from recsys.kernels.shared.launching.configs import Config

__all__ = ["Launch", "Recorder", "active_recorder", "record_launches"]

_TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "i1",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel with the types of its arguments: all that its machine code depends on."""

    kernel: Any
    """The `triton.jit` function."""
    signature: tuple[tuple[str, str], ...]
    """(argument, type) in order: "*fp32", "i32", "constexpr"."""
    constants: tuple[tuple[str, Any], ...]
    """(argument, value) of the compile-time arguments."""
    aligned: tuple[str, ...]
    """Arguments known to be multiples of 16."""
    num_warps: int
    num_stages: int

    @property
    def name(self) -> str:
        """Name of the kernel."""
        return str(self.kernel.__name__)


@dataclass(slots=True)
class Recorder:
    """Collects the distinct launches made while it is active."""

    architecture: str
    """The chip whose configurations are chosen."""
    launches: dict[Launch, None] = field(default_factory=dict)
    configs: list[Config] = field(default_factory=list)
    """The configurations that launches took; those of a table are the table's own objects."""

    def record(
        self, kernel: Any, config: Config, args: tuple[Any, ...], constants: Mapping[str, Any]
    ) -> None:
        """Note one launch as Triton would specialize it."""
        parameters = _parameters(kernel)
        names = [parameter.name for parameter in parameters]
        values = dict(zip(names, args, strict=False)) | dict(config.blocks) | dict(constants)
        defaults = {p.name: p.default for p in parameters if p.has_default}
        missing = [name for name in names if name not in values and name not in defaults]
        unknown = [name for name in values if name not in names]
        if missing or unknown or len(args) > len(names):
            raise TypeError(f"{kernel.__name__}: arguments missing {missing}, unknown {unknown}")
        signature, fixed, aligned = [], [], []
        for parameter in parameters:
            value = values.get(parameter.name, defaults.get(parameter.name))
            kind = _type_of(value, parameter)
            signature.append((parameter.name, kind))
            if kind == "constexpr":
                fixed.append((parameter.name, value))
            elif _is_aligned(value, parameter):
                aligned.append(parameter.name)
        launch = Launch(
            kernel, tuple(signature), tuple(fixed), tuple(aligned), config.num_warps, config.num_stages
        )
        self.launches[launch] = None
        self.configs.append(config)


_active: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def active_recorder() -> Recorder | None:
    """Return the recorder that takes launches now, if any."""
    return _active.get()


@contextmanager
def record_launches(architecture: str) -> Iterator[Recorder]:
    """Record launches, instead of running them, inside a `with` block; outputs then hold nothing.

    Args:
        architecture: chip whose configurations are to be chosen, such as "sm_90".
    """
    recorder = Recorder(architecture)
    token = _active.set(recorder)
    try:
        yield recorder
    finally:
        _active.reset(token)


@cache
def _parameters(kernel: Any) -> tuple[Any, ...]:
    """Return what the compiler knows of each argument, even where the interpreter's form was defined."""
    if not hasattr(kernel, "params"):
        from triton.runtime.jit import JITFunction

        kernel = JITFunction(kernel.fn, **kernel.kwargs)
    return tuple(kernel.params)


def _type_of(value: Any, parameter: Any) -> str:
    if parameter.is_constexpr or value is None:
        return "constexpr"
    if isinstance(value, Tensor):
        return "*" + _TYPES[value.dtype]
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, int):
        if value == 1 and not parameter.do_not_specialize:
            return "constexpr"
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise TypeError(f"{parameter.name}: {type(value).__name__} is no kernel argument")


def _is_aligned(value: Any, parameter: Any) -> bool:
    if parameter.do_not_specialize or parameter.do_not_specialize_on_alignment:
        return False
    if isinstance(value, Tensor):
        return value.data_ptr() % 16 == 0
    return isinstance(value, int) and not isinstance(value, bool) and value % 16 == 0
