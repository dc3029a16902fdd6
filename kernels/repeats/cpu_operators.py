"""What the corrections of the softmax on the CPU have in common: operators around compiled workers.

The backward pass computes the scores again. A sequence's rows and events belong to one thread; its share of
the biases' gradient has a row of its own, and rows are added in order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.kernels.shared.arrays import flat
from recsys.kernels.shared.operators import cpu_operator
from recsys.kernels.shared.threads import launch, threads_for
from recsys.kernels.shared.vector import LANES

__all__ = ["CpuCorrection", "bucket_table", "task_order"]

SHORT = 64
"""Sequences up to this length are not sorted."""


class CpuCorrection:
    """A correction as two operators of PyTorch, forward and backward, float32.

    Args:
        name: of the operators.
        batch_of: from the arguments of `forward` to what the compiled loops read, with fields ``order`` and
            ``event_bounds``, and the elementary steps of the forward pass.
        forward_worker: writes what each row gains and its correction.
        backward_worker: writes the gradients.

    Attributes:
        forward: the operator, differentiable.
    """

    def __init__(
        self,
        name: str,
        batch_of: Callable[..., tuple[Any, int]],
        forward_worker: Callable[..., None],
        backward_worker: Callable[..., None],
    ) -> None:
        @cpu_operator(f"recsys::{name}")
        def forward(
            hidden: Tensor,
            keys: Tensor,
            log_totals: Tensor,
            biases: Tensor,
            layout: list[Tensor],
            sees_later: bool,
            rate: float,
            own: float,
            even: float,
        ) -> tuple[Tensor, Tensor]:
            """Return the correction (M,) and what each row's sum gains (M,).

            float32, d a multiple of LANES; `rate` is the temperature's inverse; the target's own bias weighs
            `own` in the loss and every one of the window `even`.
            """
            correction, gained = torch.empty(log_totals.shape), torch.empty(log_totals.shape)
            batch, steps = batch_of(hidden, keys, log_totals, biases, layout, sees_later, rate, own, even)
            threads = threads_for(len(batch.order), steps)
            launch(forward_worker, threads, batch, flat(gained), flat(correction))
            return correction, gained

        @forward.register_fake
        def _(hidden: Tensor, keys: Tensor, log_totals: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
            return torch.empty_like(log_totals), torch.empty_like(log_totals)

        @cpu_operator(f"recsys::{name}_backward")
        def backward(
            grad: Tensor,
            gained: Tensor,
            hidden: Tensor,
            keys: Tensor,
            log_totals: Tensor,
            biases: Tensor,
            layout: list[Tensor],
            sees_later: bool,
            rate: float,
            own: float,
            even: float,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Return the gradients of hidden, keys, log_totals and biases."""
            d_hidden, d_keys, d_totals = (torch.empty(x.shape) for x in (hidden, keys, log_totals))
            batch, steps = batch_of(hidden, keys, log_totals, biases, layout, sees_later, rate, own, even)
            d_biases = np.zeros((len(batch.event_bounds) - 1, len(biases)), dtype=np.float32)
            launch(
                backward_worker,
                threads_for(len(batch.order), 3 * steps),
                batch,
                flat(gained),
                flat(grad),
                flat(d_hidden),
                flat(d_keys),
                flat(d_totals),
                d_biases.reshape(-1),
            )
            # By numpy, on this thread: an order of sums that the shape sets.
            total = d_biases.sum(0, dtype=np.float64).astype(np.float32)
            return d_hidden, d_keys, d_totals, torch.from_numpy(total)

        @backward.register_fake
        def _(
            grad: Tensor,
            gained: Tensor,
            hidden: Tensor,
            keys: Tensor,
            log_totals: Tensor,
            biases: Tensor,
            *_: Any,
        ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            d_hidden, d_keys, d_totals, d_biases = map(torch.empty_like, (hidden, keys, log_totals, biases))
            return d_hidden, d_keys, d_totals, d_biases

        def differentiate(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
            gained, hidden, keys, log_totals, biases, *layout = ctx.saved_tensors
            none = [None] * len(layout), None, None, None, None
            if grad is None:
                return None, None, None, None, *none
            return *backward(grad, gained, hidden, keys, log_totals, biases, layout, *ctx.options), *none

        forward.register_autograd(differentiate, setup_context=_save)
        self.forward = forward

    def __call__(
        self,
        hidden: Tensor,
        keys: Tensor,
        log_totals: Tensor,
        biases: Tensor,
        layout: list[Tensor],
        *,
        sees_later: bool,
        n_items: int,
        label_smoothing: float,
        temperature: float,
    ) -> Tensor:
        """Compute the correction of each row; arguments as of the reference, but as the loops read them."""
        pad = -hidden.shape[1] % LANES
        if pad:
            hidden, keys = (torch.nn.functional.pad(x, (0, pad)) for x in (hidden, keys))
        correction: Tensor = self.forward(
            hidden,
            keys,
            log_totals,
            biases,
            layout,
            sees_later,
            1.0 / temperature,
            1.0 - label_smoothing,
            label_smoothing / n_items,
        )[0]
        return correction


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, layout = inputs[:5]
    ctx.save_for_backward(output[1], *tensors, *layout)
    ctx.options = inputs[5:]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def task_order(lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sequences with events or rows, longest first, so that no thread begins one late.

    Short ones stay in the order in which they lie.
    """
    order = np.argsort(np.where(lengths > SHORT, -lengths, 0), kind="stable")
    return order[(lengths + counts)[order] > 0]


def bucket_table(longest: int, count: int) -> NDArray[np.int64]:
    """Bucket of each distance that a sequence has: the place of its leading bit, exactly."""
    found: NDArray[np.int64] = np.frexp(np.arange(longest + 1))[1].astype(np.int64) - 1
    return found.clip(0, count - 1)
