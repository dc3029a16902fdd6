"""A shared counter from which the threads of one launch take their next task.

numba's prange cuts its range into equal parts beforehand; one long sequence or one busy core then keeps all
others waiting. Which thread takes which task never changes a result: each task has its own outputs.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from recsys.kernels.shared.vector.compiling import intrinsic
from recsys.kernels.shared.vector.lanes import element_pointer


@intrinsic
def next_task(typing_context: Any, counter: Any) -> Any:
    """Return counter[0] (int64) and add one to it, atomically."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        pointer = element_pointer(context, builder, signature.args[0], args[0], word(0))
        return builder.atomic_rmw("add", pointer, word(1), "monotonic")

    return types.int64(counter), emit
