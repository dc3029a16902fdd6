"""The norm of a gradient whose rows may lie on several processes, the same bits wherever they lie.

A sum of floating-point numbers depends on its order. So the squares are rounded to multiples of one power of
two, which follows from the largest of them and from how many there are, and added as whole numbers; what the
rounding leaves is rounded and added likewise. For a million numbers 2^-84 of the largest square is lost of
each, for 10^9 of them 2^-64.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from recsys.training.processes import ALONE, Processes

__all__ = ["exact_norm"]

CHUNK = 1 << 22
"""Numbers that are squared at once."""


def exact_norm(values: Tensor, processes: Processes = ALONE) -> Tensor:
    """Euclidean norm of all numbers that the processes have.

    Args:
        values: those of this process, in any shape.
        processes: that each have a part; all call this together.

    Returns:
        () in the type and on the device of `values`; NaN or infinite where one of them is.
    """
    flat = values.detach().reshape(-1)
    largest = float(flat.abs().max()) if len(flat) else 0.0  # NaN where one is
    told = torch.tensor([[largest, float(len(flat))]], dtype=torch.float64)
    everywhere = torch.cat(processes.gather(told, [1] * processes.size))
    largest, count = float(everywhere[:, 0].max()), int(everywhere[:, 1].sum())
    if largest == 0 or not math.isfinite(largest):
        return flat.new_tensor(largest)
    # Each square is below 2^exponent, and their sum in units of 2^(exponent - bits) below 2^62.
    exponent, bits = 2 * math.frexp(largest)[1], 62 - count.bit_length()
    sums = torch.zeros(1, 2, dtype=torch.int64)
    for first in range(0, len(flat), CHUNK):
        squares = flat[first : first + CHUNK].to(torch.float64).square()
        units = squares * math.ldexp(1.0, bits - exponent)
        left = (units - units.round()) * math.ldexp(1.0, bits)
        sums += torch.stack((units.round().to(torch.int64).sum(), left.round().to(torch.int64).sum())).cpu()
    coarse, fine = torch.cat(processes.gather(sums, [1] * processes.size)).sum(0).tolist()
    # Whole numbers of Python, and one rounding at the end.
    whole = Fraction((coarse << bits) + fine)
    return flat.new_tensor(math.sqrt(whole / (1 << 2 * bits)) * math.ldexp(1.0, exponent // 2))
