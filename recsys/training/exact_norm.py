"""The norm of a gradient whose rows may lie on several processes, the same bits wherever they lie.

A sum of floating-point numbers depends on its order. So the squares are rounded to multiples of one power of
two, which follows from the largest of them and from how many there are, and added as whole numbers. What is
rounded away is below 2^-40 of the largest square for a million of them.
"""

import math

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
    largest = float(flat.abs().max()) if len(flat) else 0.0
    told = torch.tensor([[largest, float(len(flat))]], dtype=torch.float64)
    everywhere = torch.cat(processes.gather(told, [1] * processes.size))
    largest, count = float(everywhere[:, 0].max()), int(everywhere[:, 1].sum())
    if largest == 0 or not math.isfinite(largest):
        return flat.new_tensor(largest)
    # Each square is below 2^exponent, and their sum in units of 2^unit below 2^62.
    exponent = 2 * math.frexp(largest)[1]
    unit = exponent - (62 - count.bit_length())
    total = 0
    for first in range(0, len(flat), CHUNK):
        scaled = flat[first : first + CHUNK].to(torch.float64)
        units = scaled.square() * math.ldexp(1.0, -unit)
        total += int(units.round().to(torch.int64).sum())
    sums = processes.gather(torch.tensor([total]), [1] * processes.size)
    whole = sum(int(part) for part in sums)
    return flat.new_tensor(math.sqrt(math.ldexp(whole, unit)))
