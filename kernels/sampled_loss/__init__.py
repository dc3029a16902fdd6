"""Losses over a target and sampled negatives instead of the whole catalog.

Read `reference` first, then `form`, `autograd` (what both devices share) and `cpu_forward` or
`triton_forward`: the compiled loops take the gradients of the scores ("score gradients") in the pass that
computes the losses.

All take hidden (N, d), items (V, d) or a `HashedTable`, targets (N,) and negatives, which are (N, K), each
row's own, or (K,), shared by all rows. A row's negatives that are its target are excluded from its loss
("accidental hits"); `recsys.kernels.sampling` draws none for rows of their own. z_t and z_j are the scores
of the target and of negative j: inner products over the temperature.

Legend: N rows, K negatives, V items, d width, U distinct items of a batch.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.embedding import Items, item_count
from recsys.kernels.sampled_loss import reference
from recsys.kernels.sampled_loss.autograd import sampled_loss
from recsys.kernels.sampled_loss.checks import check_options, check_tensors
from recsys.kernels.sampled_loss.form import BCE, BPR, SOFTMAX, Arguments, Form, gbce_beta
from recsys.kernels.shared.backends import BackendTable

__all__ = ["bce_loss", "bpr_loss", "gbce_beta", "gbce_loss", "sampled_softmax_loss"]

Loss = Callable[[Arguments, Form], Tensor]
"""A backend."""


def _cpu() -> Loss:
    from recsys.kernels.sampled_loss import cpu

    return partial(sampled_loss, cpu.BACKEND)


def _triton() -> Loss:
    from recsys.kernels.sampled_loss import triton

    return partial(sampled_loss, triton.BACKEND)


BACKENDS = BackendTable[Loss](
    "sampled_loss", {"reference": lambda: reference.sampled_loss, "cpu": _cpu, "triton": _triton}
)


def sampled_softmax_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    log_q: Tensor | None = None,
    target_log_q: Tensor | None = None,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    sparse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute softmax cross-entropy of the target against sampled negatives, with logQ correction.

    loss = log(exp(z_t - lq_t) + sum over j of exp(z_j - lq_j)) - (z_t - lq_t)
           + eps (z_t - lq_t - mean over j of z_j)

    With lq_j the log of negative j's expected count and lq_t = 0, the sum in the logarithm estimates the
    partition function of the full softmax without bias. The target is always there and takes no correction:
    its gradient then is the corrected one of Khrylchenko et al. 2025 (arXiv:2507.09331), whose weight
    1 - p(target) is the factor that softmax puts before it. Yi et al. 2019 correct the target like any
    negative: that is `target_log_q`.

    Args:
        hidden: (N, d) float32, float64, bfloat16 or float16.
        items: (V, d), dtype of hidden, or a `HashedTable` of such.
        targets: (N,) int64.
        negatives: (N, K) or (K,) int64.
        log_q: shape of negatives, or (K,); None subtracts nothing. See `log_expected_count`.
        target_log_q: (N,) or None.
        label_smoothing: eps in [0, 1], share of the target spread evenly over its negatives; with uniform
            negatives the expected term is that of the full softmax.
        temperature: > 0, divides the scores.
        weight: (N,) floating, >= 0, row weights, or None for ones. Data: takes no gradient.
        reduction: "mean" (sum of weight * loss over sum of weight; 0 when no weight), "sum" or "none".
        sparse: whether the table's gradient is a sparse tensor of the U rows touched, or a dense one.
        backend: "reference", "cpu", "triton" or None to choose by device.

    Returns:
        A scalar, or (N,) for "none". Differentiable once in hidden and items.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Cost: 6 N K d multiply-adds with gradients; negatives of each row are gathered one by one (N K d floats
    read), shared ones enter matrix products, several times faster at equal K. Memory O(N K) for (N, K),
    O(N d + K d) for (K,) (compiled).
    Numerics: compiled kernels compute in float32; with (N, K), a row's loss and its gradient in hidden have
    the same bits whatever the number of threads or the other rows.
    Source: Jean et al. 2015 (arXiv:1412.2007); in-batch negatives with logQ, Yi et al. 2019.
    """
    arguments = Arguments(
        hidden=hidden,
        items=items,
        targets=targets,
        negatives=negatives,
        log_q=log_q,
        target_log_q=target_log_q,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
        sparse=sparse,
    )
    return _compute("sampled_softmax_loss", Form(SOFTMAX, smoothing=label_smoothing), backend, arguments)


def bce_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    sparse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute binary cross-entropy of the target and its negatives, SASRec's loss.

    loss = -(log sigmoid(z_t) + sum over j of log(1 - sigmoid(z_j))) / (K + 1)

    The mean is gSASRec's; SASRec's sum with one negative is twice that. Arguments, errors and cost as in
    `sampled_softmax_loss`.

    Source: Kang and McAuley 2018 (arXiv:1808.09781).
    """
    arguments = Arguments(
        hidden=hidden,
        items=items,
        targets=targets,
        negatives=negatives,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
        sparse=sparse,
    )
    return _compute("bce_loss", Form(BCE), backend, arguments)


def gbce_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    t: float = 0.75,
    n_items: int | None = None,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    sparse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute generalized binary cross-entropy, gSASRec's loss, which undoes the overconfidence of sampling.

    loss = -(beta log sigmoid(z_t) + sum over j of log(1 - sigmoid(z_j))) / (K + 1)
    beta = alpha (t (1 - 1 / alpha) + 1 / alpha),  alpha = K / (V - 1), the sampling rate, at most 1.

    The power beta of a sigmoid is a factor of its logarithm, so no float64 is needed; the authors' transform
    of z_t loses its gradient below about -23.

    Args:
        hidden: as in `sampled_softmax_loss`, like those not named here.
        items: likewise.
        targets: likewise.
        negatives: likewise; K is the number per row, shared or not.
        t: calibration in [0, 1]; 0 is `bce_loss`, 1 fully calibrated.
        n_items: V, where `items` has more rows than the catalog; None for its rows.
        temperature: likewise.
        weight: likewise.
        reduction: likewise.
        sparse: likewise.
        backend: likewise.

    Source: Petrov and Macdonald 2023 (arXiv:2308.07192).
    """
    if not 0.0 <= t <= 1.0:
        raise ArgumentError(f"gbce_loss: t is {t}, want a number in [0, 1]")
    beta = gbce_beta(max(1, negatives.shape[-1]), n_items or item_count(items), t)
    arguments = Arguments(
        hidden=hidden,
        items=items,
        targets=targets,
        negatives=negatives,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
        sparse=sparse,
    )
    return _compute("gbce_loss", Form(BCE, beta=beta), backend, arguments)


def bpr_loss(
    hidden: Tensor,
    items: Items,
    targets: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    sparse: bool = False,
    backend: str | None = None,
) -> Tensor:
    """Compute Bayesian personalized ranking: the target is to score above each negative.

    loss = -(sum over j of log sigmoid(z_t - z_j)) / K

    Arguments, errors and cost as in `sampled_softmax_loss`. Regularization is the optimizer's business.

    Source: Rendle et al. 2009 (arXiv:1205.2618).
    """
    arguments = Arguments(
        hidden=hidden,
        items=items,
        targets=targets,
        negatives=negatives,
        temperature=temperature,
        weight=weight,
        reduction=reduction,
        sparse=sparse,
    )
    return _compute("bpr_loss", Form(BPR), backend, arguments)


def _compute(name: str, form: Form, backend: str | None, arguments: Arguments) -> Tensor:
    check_options(name, form, arguments)
    check_tensors(name, arguments)
    return BACKENDS.load(BACKENDS.choose(backend, arguments.hidden))(arguments, form)
