"""The arguments of one pooling, checked at the door: what every backend takes."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["ClockCall"]


@dataclass(frozen=True, slots=True, eq=False)
class ClockCall:
    """Arguments of `clock_sums`; shapes, types and meaning as there."""

    values: Tensor
    times: Tensor
    query_times: Tensor
    offsets: Tensor
    coefficients: Tensor
    rate: Tensor
    chunk: int
    """Events that "cpu" weighs pair by pair before they enter its state; the whole history: direct form."""
