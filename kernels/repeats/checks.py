"""Checks of the repeat correction's arguments; each failure is one line that names the argument."""

from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.repeats.layout import RepeatLayout

__all__ = ["check_tensors"]


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
