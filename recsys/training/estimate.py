"""One line before training: what a run will need."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.training.shard_plan import Plan


@dataclass(frozen=True, slots=True)
class Estimate:
    """What training will need.

    Attributes:
        parameters: number of trainable parameters.
        memory_bytes: weights, gradients, optimizer moments and the activations kept for one batch.
        epoch_seconds: time of one epoch, from one measured step.
        padding_avoided: share of a padded batch's positions that would hold no event.
    """

    parameters: int
    memory_bytes: int
    epoch_seconds: float
    padding_avoided: float

    def line(self) -> str:
        """The estimate as a person reads it."""
        return (
            f"{self.parameters:,} parameters; weights, gradients, moments and activations about "
            f"{self.memory_bytes / 2**20:,.0f} MiB, beside the libraries; about {self.epoch_seconds:.1f} s "
            f"per epoch, {self.padding_avoided:.0%} padding avoided"
        )


def estimate(
    model: nn.Module,
    loss_of_step: Callable[[int], Tensor],
    plan: Plan,
    max_length: int,
    extra_copies: int,
) -> Estimate:
    """Run the first batch forward and backward, twice, and extrapolate; gradients are cleared after.

    The first time compiles what has to be compiled and counts what autograd keeps; the second is timed.

    Args:
        model: whose parameters are counted.
        loss_of_step: loss of step s of the first epoch; drawing nothing from a shared random state.
        plan: of the first epoch.
        max_length: width that a padding implementation would use.
        extra_copies: weight-sized tensors besides weights and gradients (moments, averages, best).
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of_step(0).backward()
    started = time.perf_counter()
    loss_of_step(0).backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)

    parameters = sum(p.numel() for p in model.parameters())
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    activations = sum(size for pointer, size in kept.items() if pointer not in own)
    return Estimate(
        parameters=parameters,
        memory_bytes=parameters * 4 * (2 + extra_copies) + activations,
        epoch_seconds=seconds * plan.n_events / max(plan.step_events(0), 1),
        padding_avoided=1 - plan.n_events / max(1, plan.n_windows * max(max_length, plan.longest_window)),
    )
