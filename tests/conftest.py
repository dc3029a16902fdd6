"""Session-wide preparation."""

import numba
import numpy as np


@numba.njit
def _allocate() -> np.ndarray:  # type: ignore[type-arg]
    return np.empty(1, dtype=np.float32)


# numba registers numpy's functions when it first compiles. Kernel tests replace np.empty by a NaN-filled
# one: were that the first compilation, the replacement would be registered for the rest of the process.
_allocate()
