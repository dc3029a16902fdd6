"""What a device can do at most: bytes copied, products and exponentials a second, as measured on it."""

import time
from collections.abc import Callable
from typing import Any

import torch

from recsys.benchmarks.timing import alternate

__all__ = ["measure_limits"]

ROUNDS = 512
"""Exponentials of each number in the kernel that counts them."""


def measure_limits(device: torch.device) -> dict[str, float]:
    """Measure on an idle device.

    Returns:
        copy_bytes: read and written, of a copy of 1 GiB (on a CPU 256 MiB: what the caches hold may move
        faster); bfloat16_flops and float32_flops: of a product of 8,192 (4,096) square matrices, float32
        without TF32, on a CPU of 1,024 square ones or of multiply-adds in registers, what is more; exps: of
        exp2 in registers, on a CPU of `kernels.shared.vector`'s in the first-level cache. On a CPU one
        thread is timed, by the processor time of the process, and counted for each of torch's threads, but
        for the copy, which they share.
    """
    if device.type == "cpu":
        return _of_cpu()
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)
    half = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    wide = torch.randn(4096, 4096, device=device)
    numbers = torch.rand(1 << 22, device=device)

    def seconds(call: Callable[[], Any]) -> float:
        call()
        return min(alternate({"it": call}, device=device, seconds=0.5, most=10)["it"])

    torch.backends.cuda.matmul.allow_tf32 = False
    return {
        "copy_bytes": 2 * source.nbytes / seconds(lambda: target.copy_(source)),
        "bfloat16_flops": 2 * 8192**3 / seconds(lambda: half @ half),
        "float32_flops": 2 * 4096**3 / seconds(lambda: wide @ wide),
        "exps": numbers.numel() * ROUNDS / seconds(lambda: _exponentials(numbers)),
    }


def _of_cpu() -> dict[str, float]:
    import numpy as np

    from recsys.benchmarks.catalog_limits import exponentials, multiply_adds

    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    wide = torch.randn(1024, 1024)
    half = wide.bfloat16()
    numbers = np.full(4096, -0.5, dtype=np.float32)
    threads, steps = torch.get_num_threads(), 200_000

    def seconds(call: Callable[[], Any]) -> float:
        call()
        times = alternate(
            {"it": call}, device=torch.device("cpu"), seconds=0.5, least=10, clock=time.process_time
        )
        return min(times["it"])

    torch.set_num_threads(1)
    try:
        product = 2 * 1024**3 / seconds(lambda: wide @ wide)
        added = multiply_adds(numbers, 0) * steps / seconds(lambda: multiply_adds(numbers, steps))
        return {
            "copy_bytes": 2 * source.nbytes / seconds(lambda: target.copy_(source)),
            "bfloat16_flops": threads * 2 * 1024**3 / seconds(lambda: half @ half),
            "float32_flops": threads * max(product, added),
            "exps": threads * numbers.size * ROUNDS / seconds(lambda: exponentials(numbers, ROUNDS)),
        }
    finally:
        torch.set_num_threads(threads)


def _exponentials(numbers: torch.Tensor) -> None:
    from recsys.benchmarks.kernels.exponentials import exponentials_kernel

    exponentials_kernel[(numbers.numel() // 1024,)](numbers, ROUNDS=ROUNDS, SIZE=1024, num_warps=8)
