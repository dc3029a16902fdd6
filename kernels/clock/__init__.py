"""The interest clock, time-of-day pooling: causal sums of a user's past events by hour and age.

Read `reference` first, then `circle` (kernels on the 24-hour circle) and `ages`; `cpu` with `cpu_products`,
or `triton` with `triton_products`: one kernel, which `gradients` uses for the backward pass too; `streaming`
for one event at a time.

Legend: N events, B sequences, d width of values, M degree of the kernel on the 24-hour circle.
"""

from collections.abc import Callable

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.clock import reference
from recsys.kernels.clock.call import ClockCall
from recsys.kernels.clock.checks import check_clock
from recsys.kernels.clock.circle import (
    circle_features,
    cosine_coefficients,
    highest_harmonic,
    hours_to_degree,
)
from recsys.kernels.clock.streaming import (
    ClockState,
    clock_read,
    clock_state,
    clock_step,
    initial_clock_state,
)
from recsys.kernels.shared.backends import BackendTable

__all__ = [
    "ClockState",
    "circle_features",
    "clock_read",
    "clock_state",
    "clock_step",
    "clock_sums",
    "cosine_coefficients",
    "highest_harmonic",
    "hours_to_degree",
    "initial_clock_state",
]

Pool = Callable[[ClockCall], Tensor]
"""A backend: (N, d) in the dtype of the values."""

FORMS = ("auto", "direct", "recurrent")

CHUNK = 32
"""Events that the recurrent form weighs pair by pair before they go into its state."""

LONGEST_DIRECT = 4
"""The direct form is taken for histories of up to this many times 2M + 1 events."""


def _cpu() -> Pool:
    from recsys.kernels.clock import cpu

    return cpu.clock_sums


def _triton() -> Pool:
    from recsys.kernels.clock import triton

    return triton.clock_sums


BACKENDS = BackendTable[Pool](
    "clock", {"reference": lambda: reference.clock_sums, "cpu": _cpu, "triton": _triton}
)


def clock_sums(
    values: Tensor,
    times: Tensor,
    query_times: Tensor,
    offsets: Tensor,
    *,
    coefficients: Tensor,
    rate: Tensor,
    max_length: int,
    form: str = "auto",
    backend: str | None = None,
) -> Tensor:
    """Sum each sequence's events up to the current one, weighted by nearness in time of day and by age.

    Event i, asked about time q_i, gets  sum over j <= i of K(q_i - t_j) exp(-rate (max(q_i, t_i) - t_j)) v_j
    with K(x) = c_0 + 2 sum over m of c_m cos(2 pi m x / day). A column of ones among the values gives the sum
    of weights to normalize with.

    Args:
        values: (N, d) float32, float64, bfloat16 or float16.
        times: (N,) int64 local seconds (UTC plus the zone's offset), non-decreasing within a sequence.
        query_times: (N,) int64 local seconds at which each event's sums are asked for: in training the time
            of the next event, which a request knows.
        offsets: (B + 1,) int32, non-decreasing, first 0, last N. Empty sequences are allowed.
        coefficients: (M + 1,) floating, c_0..c_M, see `cosine_coefficients`; a mix of kernels of several
            widths is the mix of their coefficients.
        rate: () floating tensor, decay of weights per day of age, >= 0; 0 for none.
        max_length: upper bound on the sequences' lengths, a constant of the model: with `form="auto"` it
            chooses the form, so that a batch never does.
        form: "direct" weighs all pairs, O(L^2 (M + d)); "recurrent" carries a state of (2M + 1) x d along,
            O(L M d); "auto" takes the direct one up to `LONGEST_DIRECT` * (2M + 1) events. They agree.
            "triton" has the recurrent one alone.
        backend: "reference", "cpu", "triton" or None to choose by device and dtype.

    Returns:
        (N, d), dtype of values. Differentiable in values, coefficients and rate.

    Raises:
        ArgumentError: an argument does not fit; the message names it and the shapes.

    Numerics: "cpu" computes in float32, with weights exact to 1e-6 of the kernel's peak; a sequence's sums
    and the gradients of its values have the same bits whatever else is in the batch.
    Source: Interest Clock (SIGIR 2024, arXiv:2404.19357), its hour buckets replaced by exact times; the
    chunked recurrence is that of linear attention (Katharopoulos et al. 2020, arXiv:2006.16236).
    """
    check_clock(values, times, query_times, offsets, coefficients, rate)
    if form not in FORMS:
        raise ArgumentError(f"clock_sums: form is {form!r}, use one of {', '.join(FORMS)}")
    direct = form == "direct"
    if form == "auto":
        direct = max_length <= LONGEST_DIRECT * (2 * len(coefficients) - 1)
    chunk = -(-max(max_length, 1) // CHUNK) * CHUNK if direct else CHUNK
    pool = BACKENDS.load(BACKENDS.choose(backend, values))
    return pool(ClockCall(values, times, query_times, offsets, coefficients, rate, chunk))
