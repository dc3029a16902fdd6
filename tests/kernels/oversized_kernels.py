# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Two kernels that no chip should run, and the script that compiles them: for test_compiled_table."""

import json
import sys

import torch
import triton
import triton.language as tl

from recsys.kernels.shared.launching import Config, launch
from recsys.kernels.shared.launching.machine_code import compile_launch
from recsys.kernels.shared.launching.recording import record_launches
from recsys.kernels.shared.launching.table import faults, key_of, row_of

SHIFT = tl.constexpr(3)


@triton.jit
def shifted(x):
    """Add a constant of this module."""
    return x + SHIFT


@triton.jit
def spilling_kernel(x, y, SIZE: tl.constexpr):
    """Keep SIZE * SIZE numbers alive over a sum of them all."""
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    value = tl.load(x + at)
    tl.store(y + at, shifted(value) * tl.sum(tl.sum(value, 0), 0))


@triton.jit
def oversized_kernel(x, y, SIZE: tl.constexpr):
    """Multiply two matrices held in shared memory whole."""
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    product = tl.dot(tl.load(x + at), tl.load(y + at), input_precision="ieee")
    tl.store(y + at, product.to(tl.float16))


def main(chip: str) -> None:
    """Print the faults of both kernels as JSON."""
    x, half = torch.zeros(1), torch.zeros(1, dtype=torch.float16)
    with record_launches(chip) as recorder:
        launch(spilling_kernel, 1, Config(blocks={"SIZE": 128}, num_warps=1), x, x)
        launch(oversized_kernel, 1, Config(blocks={"SIZE": 256}, num_warps=8), half, half)
    rows = [
        row_of(key_of("test", made, chip), made, compile_launch(made, chip)) for made in recorder.launches
    ]
    print(json.dumps(faults(rows)))


if __name__ == "__main__":
    main(sys.argv[1])
