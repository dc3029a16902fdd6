"""Which sampled loss: the one thing in which they differ is a row's loss as a function of its scores."""

from typing import NamedTuple

__all__ = ["BCE", "BPR", "SOFTMAX", "Form", "gbce_beta"]

SOFTMAX, BCE, BPR = 0, 1, 2


class Form(NamedTuple):
    """A sampled loss and its numbers."""

    kind: int
    """SOFTMAX, BCE or BPR."""

    smoothing: float = 0.0
    """SOFTMAX: share of the target spread over the row's negatives."""

    beta: float = 1.0
    """BCE: factor of the positive term; below 1 it is gBCE."""


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """Compute gSASRec's beta = alpha (t (1 - 1 / alpha) + 1 / alpha), alpha = K / (V - 1), at most 1.

    t = 0 gives 1, plain BCE; t = 1 gives alpha, with which the scores are fully calibrated.
    """
    alpha = min(1.0, n_negatives / max(n_items - 1, 1))
    return alpha * (t * (1 - 1 / alpha) + 1 / alpha)
