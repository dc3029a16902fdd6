"""How the numba kernels are compiled: on first use, cached on disk, without fast-math or the global lock."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numba.extending import intrinsic as numba_intrinsic

from recsys.kernels.shared.vector.code_cache import CodeCache

Array = Any
"""A 1-D contiguous array, as compiled code sees it."""

Number = Any
"""An integer, float32 or bool, as compiled code sees it."""

Function = TypeVar("Function", bound=Callable[..., Any])

# Without its types, which would show the emitting form of an intrinsic to the type checker at its calls.
intrinsic = cast("Callable[[Callable[..., Any]], Any]", numba_intrinsic)


def compiled(function: Function) -> Function:
    """Compile a loop; it runs on several threads by `recsys.kernels.shared.threads.launch`."""
    dispatcher: Any = njit(nogil=True)(function)
    # Without a folder that may hold the cache and can be written: compile in every process.
    with contextlib.suppress(RuntimeError):
        dispatcher._cache = CodeCache(function)
    return cast("Function", dispatcher)
