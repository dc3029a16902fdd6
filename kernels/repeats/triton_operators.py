"""What the corrections of the softmax on the GPU have in common: autograd around two passes of kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.reference import LEAST_LEFT
from recsys.kernels.shared.launching import Config, architecture, choose_config

__all__ = [
    "LEAST",
    "Inputs",
    "Passes",
    "Weighing",
    "choose",
    "corrected",
    "power_of_two",
    "programs",
    "total",
]

LEAST = LEAST_LEFT - 1
"""The least that a row may gain."""


class Weighing(NamedTuple):
    """The numbers of the loss."""

    sees_later: bool
    rate: float
    """1 / temperature."""
    own: float
    """Weight of the target's bias in the loss."""
    even: float
    """Weight of every bias of the window."""


class Inputs(NamedTuple):
    """What both passes read: tensors whose rows lie end to end, and the layout."""

    hidden: Tensor
    keys: Tensor
    totals: Tensor
    biases: Tensor
    """As the kernels read them: the bias at the temperature, or the logs of weights."""
    layout: RepeatLayout
    weighing: Weighing


@dataclass(frozen=True)
class Passes:
    """The two passes of a correction."""

    forward: Callable[[Inputs], tuple[Tensor, ...]]
    """Gives the correction (M,) and what the backward pass needs of this one."""
    backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
    """From inputs, the gradient (M,) and what was kept to the gradients of the four tensors."""


def corrected(
    passes: Passes,
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    biases: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float,
    temperature: float,
) -> Tensor:
    """Compute the correction of each row, differentiable; arguments as of the reference."""
    weighing = Weighing(sees_later, 1.0 / temperature, 1.0 - label_smoothing, label_smoothing / n_items)
    out: Tensor = _Correction.apply(passes, hidden, keys, log_totals, biases, layout, weighing)  # type: ignore[no-untyped-call]
    return out


class _Correction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        passes: Passes,
        hidden: Tensor,
        keys: Tensor,
        totals: Tensor,
        biases: Tensor,
        layout: RepeatLayout,
        weighing: Weighing,
    ) -> Tensor:
        hidden, keys, totals, biases = (x.contiguous() for x in (hidden, keys, totals, biases))
        correction, *kept = passes.forward(Inputs(hidden, keys, totals, biases, layout, weighing))
        ctx.save_for_backward(hidden, keys, totals, biases, *kept)
        ctx.passes, ctx.layout, ctx.weighing = passes, layout, weighing
        return correction

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, keys, totals, biases, *kept = ctx.saved_tensors
        inputs = Inputs(hidden, keys, totals, biases, ctx.layout, ctx.weighing)
        gradients = ctx.passes.backward(inputs, upstream.contiguous(), *kept)
        return None, *gradients, None, None


def choose(kernel: str, inputs: Inputs) -> Config:
    """Return the configuration of a kernel for states of this width."""
    return choose_config("repeats", kernel, architecture(inputs.hidden), width=inputs.hidden.shape[1])


def programs(inputs: Inputs, blocks: int, config: Config) -> int:
    """Return how many programs own each a block of a sequence and, of gradients, BLOCK_D columns of it."""
    slices = -(-inputs.hidden.shape[1] // config.blocks.get("BLOCK_D", inputs.hidden.shape[1]))
    return inputs.layout.shape[0] * blocks * slices


def power_of_two(count: int) -> int:
    """The least power of two that holds a count."""
    return 1 << max(0, count - 1).bit_length()


def total(parts: Tensor, like: Tensor) -> Tensor:
    """The sum of rows (n, K), in an order that the shape sets."""
    return parts.sum(0, dtype=torch.float64).to(like.dtype)
