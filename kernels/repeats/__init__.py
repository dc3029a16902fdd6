"""Repeat-consumption bias: what a learned bias of the items already in a window adds to the softmax.

Read `reference` first, then `layout`, `cpu_pairs` and `cpu_forward` or `triton_pairs` and `triton_forward`.

The fused cross-entropy knows nothing of windows: z_v = h . e_v for every item. With a bias b of the items
of the window, by how far back they lie, z'_v = z_v + b there, and

    logsumexp(z') = logsumexp(z) + log(1 + sum over the window of (e^b - 1) e^(z - logsumexp(z))).

So the window's own pairs, as many as attention has, are all that is to be looked at again.
`occurrence_correction` gives b another meaning: each occurrence of the item has a weight by its distance and,
where times are known, by its hour, age and weekday, and b is the log of the sum of these weights, which says
how often as well (`occurrences`, `occurrence_reference`).
Legend: N events, M rows that predict, V items, d width, K buckets.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.repeats import occurrence_reference, reference
from recsys.kernels.repeats.checks import check_occurrences, check_tensors
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import Occurrences
from recsys.kernels.shared.backends import BackendTable

__all__ = ["Occurrences", "RepeatLayout", "occurrence_correction", "repeat_correction"]

Correction = Callable[..., Tensor]
"""A backend: arguments as of `reference.repeat_correction`."""


def _cpu() -> Correction:
    from recsys.kernels.repeats import cpu

    return cpu.repeat_correction


def _triton() -> Correction:
    from recsys.kernels.repeats import triton

    return triton.repeat_correction


def _cpu_occurrences() -> Correction:
    from recsys.kernels.repeats import cpu_occurrences

    return cpu_occurrences.occurrence_correction


def _triton_occurrences() -> Correction:
    from recsys.kernels.repeats import triton_occurrences

    return triton_occurrences.occurrence_correction


BACKENDS = BackendTable[Correction](
    "repeats", {"reference": lambda: reference.repeat_correction, "cpu": _cpu, "triton": _triton}
)

OCCURRENCE_BACKENDS = BackendTable[Correction](
    "occurrences",
    {
        "reference": lambda: occurrence_reference.occurrence_correction,
        "cpu": _cpu_occurrences,
        "triton": _triton_occurrences,
    },
)


def repeat_correction(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    bias: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Compute what is to be added to each row's full-softmax loss.

    An item of the window counts once, by the occurrence nearest to the row's place; its bias is that of the
    bucket of its distance: 1, 2 to 3, 4 to 7 and so on, the last bucket for all beyond.

    Args:
        hidden: (M, d) float32 or float64 states, rows of a sequence together and in order.
        keys: (N, d) vectors by which the events' items are scored, same dtype; rows of events that are not
            visible do not count.
        log_totals: (M,) logsumexp of each row's logits over the catalog, divided by the temperature.
        bias: (K,), same dtype.
        layout: of the batch, on the same device.
        sees_later: whether later events are in the window too, as in a Cloze task.
        n_items: V.
        label_smoothing: as in `linear_cross_entropy`.
        temperature: likewise; divides the bias too.
        backend: "reference", "cpu" (float32 alone), "triton" or None to choose by device and dtype.

    Returns:
        (M,) differentiable in the first four arguments.

    Raises:
        ArgumentError: shapes or dtypes do not fit.

    Numerics: the logits should come from the numbers that gave `log_totals`: where nearly all of a row's
    probability lies in its window, what is left is a difference of the two.
    """
    check_tensors(hidden, keys, log_totals, bias, layout)
    compute = _backend("repeat_correction", BACKENDS, backend, hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return compute(
            hidden,
            keys,
            log_totals,
            bias,
            layout,
            sees_later=sees_later,
            n_items=n_items,
            label_smoothing=label_smoothing,
            temperature=temperature,
        )


def occurrence_correction(
    hidden: Tensor,
    keys: Tensor,
    log_totals: Tensor,
    weights: Tensor,
    layout: RepeatLayout,
    *,
    sees_later: bool,
    n_items: int,
    label_smoothing: float = 0.0,
    temperature: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Compute the same where all occurrences of an item in the window count.

    The bias of an item is log(sum of e^w over its occurrences), w the sum of the entries of an occurrence's
    buckets: of its distance in events and, where the layout knows times, of the circular distance of the two
    times of day, of its age and of the two weekdays (`occurrences` has the buckets). An item that the window
    does not hold has none.

    Args:
        hidden: as of `repeat_correction`.
        keys: likewise.
        log_totals: likewise.
        weights: (K,) entries by distance, or (K + CLOCK,) with those of hours, ages and days behind them if
            the layout knows times; same dtype.
        layout: with `Occurrences`, on the same device.
        sees_later: as of `repeat_correction`, as are all others.
        n_items: V.
        label_smoothing: as in `linear_cross_entropy`.
        temperature: likewise; divides the bias too.
        backend: "reference", "cpu" (float32 alone), "triton" or None to choose by device and dtype.

    Returns:
        (M,) differentiable in the first four arguments.

    Raises:
        ArgumentError: shapes or dtypes do not fit, or the layout does not know what the weights read.
    """
    check_tensors(hidden, keys, log_totals, weights, layout)
    check_occurrences(weights, layout)
    compute = _backend("occurrence_correction", OCCURRENCE_BACKENDS, backend, hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        return compute(
            hidden,
            keys,
            log_totals,
            weights,
            layout,
            sees_later=sees_later,
            n_items=n_items,
            label_smoothing=label_smoothing,
            temperature=temperature,
        )


def _backend(name: str, table: BackendTable[Correction], asked: str | None, hidden: Tensor) -> Correction:
    """What computes; the CPU's own takes float32 alone."""
    chosen = table.choose(asked, hidden)
    if chosen == "cpu" and hidden.dtype != torch.float32:
        if asked is not None:
            raise ArgumentError(
                f"{name}: backend 'cpu' takes float32, not {hidden.dtype}: cast, or use backend='reference'"
            )
        chosen = "reference"
    return table.load(chosen)
