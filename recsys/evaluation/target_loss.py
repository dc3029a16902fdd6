"""The cross-entropy of held-out targets, the number that the full softmax lowers in training."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.encoders.window_bias import WindowBias
from recsys.evaluation.sharing import Sharing, whole
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets
from recsys.evaluation.window_bias import BiasFunction, window_scores


class TargetLoss:
    """Mean cross-entropy of the targets that a ranking pass asks for, from the states that it encodes anyway.

    Args:
        hidden_fn: the pass's own; see `evaluate_hidden`.
        item_weight: (V, d) item vectors.
        bias_fn: the pass's own, or None.

        sharing: processes that share the pass.

    An instance stands in for `hidden_fn`. It takes the first target of each user. Seen items stay in the sum
    over the catalog, as in training; label smoothing and temperature are left out.
    """

    def __init__(
        self,
        hidden_fn: Callable[[Ints, EvaluationTargets], Tensor],
        item_weight: Tensor,
        bias_fn: BiasFunction | None,
        sharing: Sharing | None = None,
    ) -> None:
        self._hidden_fn = hidden_fn
        self._weight = item_weight
        self._bias_fn = bias_fn
        self._sharing = sharing
        self._batches: dict[int, tuple[float, int]] = {}

    def __call__(self, rows: Ints, targets: EvaluationTargets) -> Tensor:
        """States (b, d) of rows (b,), whose loss is counted on the way."""
        states = self._hidden_fn(rows, targets)
        window = None if self._bias_fn is None else self._bias_fn(rows, targets)
        losses = target_losses(states, self._weight, targets.target[rows], window)
        self._batches[int(rows[0])] = float(losses.sum()), len(rows)
        return states

    def mean(self, n_rows: int) -> float:
        """Nats per target over all batches.

        Args:
            n_rows: of the targets that the pass asked for.
        """
        found = np.zeros((2, n_rows))
        for row, batch in self._batches.items():
            found[:, row] = batch
        sums, counts = whole(found, self._sharing)
        # Added one after the other, in the order of the users, whoever had them.
        return float(np.cumsum(sums)[-1]) / max(int(counts.sum()), 1)


def target_losses(
    states: Tensor, item_weight: Tensor, target: Ints, window: WindowBias | None = None
) -> Tensor:
    """Minus the log of the softmax over the catalog, at each row's target.

    Args:
        states: (b, d).
        item_weight: (V, d).
        target: (b,) int64.
        window: what is added to the scores of items of the rows' windows; None adds nothing.

    Returns:
        (b,) float64, in nats.
    """
    from recsys.kernels.cross_entropy import linear_cross_entropy

    wanted = torch.from_numpy(np.ascontiguousarray(target)).to(states.device)
    plain = linear_cross_entropy(states, item_weight, wanted, reduction="none").double()
    if window is None:
        return plain
    # The window's few items change the sum over the catalog by exp(score) (exp(bias) - 1) each.
    own = (states * item_weight[wanted]).sum(-1).double()
    total = plain + own
    owner = window.rows()
    rows = torch.from_numpy(owner).to(states.device)
    bias = torch.from_numpy(window.bias).to(states.device).double()
    unbiased = window_scores(states, item_weight, window).double() - bias
    share = torch.zeros_like(total).index_add_(0, rows, (unbiased - total[rows]).exp() * bias.expm1())
    mine = torch.from_numpy(window.ids == target[owner]).to(states.device)
    own = own.index_add(0, rows[mine], bias[mine])
    return total + share.clamp(min=-1 + 1e-9).log1p() - own
