"""The launches that ship, for compiling them without a GPU; see `launching.recording`."""

import itertools

import torch

from recsys.kernels.pointwise import triton

__all__ = ["record_all"]

_ROWS = 16


def record_all() -> None:
    """Each tile and type with a mask; each operation without; states in float32 beside 16-bit branches."""
    wide, half = torch.float32, torch.bfloat16
    for width, dtype in itertools.product((32, 64, 128, 256), (wide, half)):
        _record(width, dtype, dtype, dropping=True)
    _record(64, wide, half, dropping=True)
    _record(64, wide, wide, dropping=False)
    _record(64, torch.float16, torch.float16, dropping=True)


def _record(width: int, states: torch.dtype, branch: torch.dtype, *, dropping: bool) -> None:
    seed, p = (torch.zeros((), dtype=torch.int64), 0.1) if dropping else (None, 0.0)
    x, y, pair = (
        torch.zeros(_ROWS, n, dtype=d) for n, d in ((width, states), (width, branch), (2 * width, branch))
    )
    for added, gate in ((None, None), (x, None), (x, y)):
        if dropping or gate is not None:
            out = triton.drop_forward(added, y, gate, seed, p)
            triton.drop_backward(out, None if gate is None else y, gate, seed, p, branch)
    for swiglu, wide in ((False, y), (True, pair)):
        out = triton.activate_forward(wide, swiglu, seed, p)
        triton.activate_backward(out, wide, swiglu, seed, p)
    angles = torch.zeros(_ROWS, width // 2)
    for count in (2, 3):
        whole = torch.zeros(_ROWS, count, 2, width, dtype=branch)
        parts = triton.rotate_forward(whole, angles, angles, 2)
        triton.rotate_backward(parts, angles, angles, 2)
