"""The operations that ship Triton kernels, found on disk, with every launch that each may make."""

import importlib
from functools import cache
from pathlib import Path

from recsys.kernels.shared.launching.configs import read_configs
from recsys.kernels.shared.launching.recording import Launch, record_launches

__all__ = ["operations", "record_operation"]

_KERNELS = Path(__file__).parents[2]


def operations() -> list[str]:
    """Names of the operations that have `compile_cases.py`, sorted."""
    return sorted(path.parent.name for path in _KERNELS.glob("*/compile_cases.py"))


@cache
def record_operation(operation: str, architecture: str) -> tuple[Launch, ...]:
    """Record every launch of an operation's `compile_cases.record_all` for a chip, in order.

    Raises:
        LookupError: a configuration of the operation's configs.json is launched by no case.
    """
    cases = importlib.import_module(f"recsys.kernels.{operation}.compile_cases")
    with record_launches(architecture) as recorder:
        cases.record_all()
    for kernel, when, config in read_configs(operation, architecture):
        if not any(config is used for used in recorder.configs):
            raise LookupError(
                f"kernels/{operation}/configs.json: no compile case launches the row of {architecture} for "
                f"{kernel} with {dict(when)}: add one to compile_cases.py, or delete the row"
            )
    return tuple(recorder.launches)
