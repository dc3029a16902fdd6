"""Stand-in until recsys.kernels.backend is there."""

from torch import Tensor

from recsys.errors import ArgumentError


def choose_backend(operation: str, backend: str | None, tensor: Tensor) -> str:
    """Choose "cpu" for CPU tensors but float64, "reference" otherwise."""
    if backend is None:
        return "cpu" if tensor.device.type == "cpu" and tensor.dtype.itemsize < 8 else "reference"
    if backend not in ("reference", "cpu"):
        raise ArgumentError(f"backend is {backend!r}: give reference, cpu or None")
    return backend


def launch_threads() -> int:
    """Threads for one launch: as many as torch uses, as far as numba has them."""
    import numba
    import torch

    return int(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
