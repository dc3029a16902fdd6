"""Other ways to the loss over a whole catalog: loops over chunks of rows, Liger's kernel, Apple's CCE.

Each takes hidden states (N, d), item vectors (V, d) and targets (N,) and gives both gradients of the mean
loss.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import round_trip
from recsys.benchmarks.kernels.padding import leaf

__all__ = ["Side", "chunk_loop", "rivals"]

Side = Callable[[], tuple[Tensor, ...]]
"""Gives the gradients of the hidden states and of the item vectors."""

_FILTERED, _EXACT = "Apple CCE, gradient filter", "Apple CCE, exact"
LIGER = "Liger"


def chunk_loop(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, *, compiled: bool = False
) -> tuple[Tensor, Tensor]:
    """Gradients by a loop that holds the logits of `chunk` rows, forward and backward at once.

    Products in the inputs' type, softmax and the sum of the items' gradients in float32.

    Args:
        hidden: (N, d).
        weight: (V, d).
        targets: (N,) int64.
        chunk: rows.
        compiled: let torch.compile join what lies between the products.
    """
    middle = _compiled_middle() if compiled else _middle
    by_item = torch.zeros_like(weight, dtype=torch.float32)
    by_row = torch.empty_like(hidden)
    for first in range(0, len(hidden), chunk):
        own = slice(first, first + chunk)
        slopes = middle(hidden[own] @ weight.T, targets[own], len(hidden))
        by_row[own] = slopes @ weight
        by_item += slopes.T @ hidden[own]
    return by_row, by_item.to(weight.dtype)


def _middle(logits: Tensor, targets: Tensor, rows: int) -> Tensor:
    """Gradient of the mean loss by logits, in their type."""
    wide = logits.float()
    share = (wide - wide.logsumexp(1, keepdim=True)).exp()
    places = torch.arange(logits.shape[1], device=logits.device)
    return ((share - (places == targets[:, None]).float()) / rows).to(logits.dtype)


_MIDDLE: list[Callable[[Tensor, Tensor, int], Tensor]] = []


def _compiled_middle() -> Callable[[Tensor, Tensor, int], Tensor]:
    if not _MIDDLE:
        _MIDDLE.append(torch.compile(_middle, dynamic=False))
    return _MIDDLE[0]


def rivals(hidden: Tensor, weight: Tensor, targets: Tensor, upstream: Tensor) -> dict[str, Side]:
    """The libraries' sides, of those that are installed or were carried here.

    Args:
        hidden: (N, d).
        weight: (V, d).
        targets: (N,) int64.
        upstream: gradient of the loss.
    """
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    if find_spec("liger_kernel") is not None:
        found[LIGER] = _liger(targets)
    if find_spec("cut_cross_entropy") is not None:
        found[_EXACT] = _apple(targets, None)
        found[_FILTERED] = _apple(targets, "high")
    return {name: round_trip(call, [leaf(hidden), leaf(weight)], upstream) for name, call in found.items()}


def _liger(targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def call(hidden: Tensor, weight: Tensor) -> Tensor:
        from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

        made = LigerFusedLinearCrossEntropyFunction.apply(hidden, weight, targets)
        loss: Tensor = made[0] if isinstance(made, tuple) else made
        return loss

    return call


def _apple(targets: Tensor, eps: str | None) -> Callable[[Tensor, Tensor], Tensor]:
    def call(hidden: Tensor, weight: Tensor) -> Tensor:
        from cut_cross_entropy import linear_cross_entropy

        loss: Tensor = linear_cross_entropy(hidden, weight, targets, filter_eps=eps)
        return loss

    return call
