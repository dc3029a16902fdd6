"""Checks of the repeat correction's arguments; each failure is one line that names the argument."""

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.repeats.layout import RepeatLayout
from recsys.kernels.repeats.occurrences import CLOCK

__all__ = ["check_occurrences", "check_tensors"]


def check_tensors(
    hidden: Tensor, keys: Tensor, log_totals: Tensor, bias: Tensor, layout: RepeatLayout
) -> None:
    """Refuse tensors whose shapes or dtypes do not go together, or do not fit the layout.

    Raises:
        ArgumentError: see above.
    """
    rows, events = len(layout.places), len(layout.items)
    if hidden.dim() != 2 or hidden.shape[0] != rows or keys.shape != (events, hidden.shape[1]):
        raise ArgumentError(
            f"repeat_correction: hidden {tuple(hidden.shape)} and keys {tuple(keys.shape)} do not fit a "
            f"layout of {rows} rows and {events} events"
        )
    if log_totals.shape != (rows,) or bias.dim() != 1 or len(bias) < 1:
        raise ArgumentError(
            f"repeat_correction: log_totals must be ({rows},) and bias (K,), K >= 1; they are "
            f"{tuple(log_totals.shape)} and {tuple(bias.shape)}"
        )
    if not keys.dtype == log_totals.dtype == bias.dtype == hidden.dtype:
        raise ArgumentError(
            f"repeat_correction: dtypes differ: hidden {hidden.dtype}, keys {keys.dtype}, log_totals "
            f"{log_totals.dtype}, bias {bias.dtype}"
        )


def check_occurrences(weights: Tensor, layout: RepeatLayout) -> None:
    """Refuse a layout that does not know its occurrences, or weights that do not go with what it knows.

    Raises:
        ArgumentError: see above.
    """
    own = layout.occurrences
    if own is None:
        raise ArgumentError(
            "occurrence_correction: the layout knows no occurrences: give it Occurrences.of()"
        )
    if (own.event_quarters is None) != (own.row_quarters is None):
        raise ArgumentError(
            "occurrence_correction: times of events and of rows go together: give both, or none"
        )
    least = CLOCK + 1 if own.clocked else 1
    if len(weights) < least:
        raise ArgumentError(
            f"occurrence_correction: {len(weights)} weights; this layout needs at least {least}"
        )
