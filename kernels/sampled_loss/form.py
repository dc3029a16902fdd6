"""Which sampled loss, and of what: losses differ in a row's loss as a function of its scores alone."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from recsys.kernels.embedding import Items

__all__ = ["BCE", "BPR", "SOFTMAX", "Arguments", "Form", "gbce_beta"]

SOFTMAX, BCE, BPR = 0, 1, 2


class Form(NamedTuple):
    """A sampled loss and its numbers."""

    kind: int
    """SOFTMAX, BCE or BPR."""

    smoothing: float = 0.0
    """SOFTMAX: share of the target spread over the row's negatives."""

    beta: float = 1.0
    """BCE: factor of the positive term; below 1 it is gBCE."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Arguments:
    """What a loss is of and how it is summed; `sampled_softmax_loss` says what each is."""

    hidden: Tensor
    items: Items
    targets: Tensor
    negatives: Tensor
    temperature: float
    weight: Tensor | None
    reduction: str
    sparse: bool
    log_q: Tensor | None = None
    target_log_q: Tensor | None = None


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """Compute gSASRec's beta = alpha (t (1 - 1 / alpha) + 1 / alpha), alpha = K / (V - 1), at most 1.

    t = 0 gives 1, plain BCE; t = 1 gives alpha, with which the scores are fully calibrated.
    """
    alpha = min(1.0, n_negatives / max(n_items - 1, 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)
