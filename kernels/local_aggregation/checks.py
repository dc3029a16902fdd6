"""Checks of local aggregation's arguments; each failure is one line that names the argument."""

from typing import Any

from numpy.typing import NDArray

from recsys.errors import ArgumentError

__all__ = ["check_neighbours"]

Values = NDArray[Any]


def check_neighbours(queries: Values, states: Values, owners: Values, ids: Values, near: Values) -> None:
    """Refuse queries, states and neighbours whose shapes do not go together, and ids that are of no state.

    Raises:
        ArgumentError: see above.
    """
    if queries.ndim != 2 or states.ndim != 2 or queries.shape[1] != states.shape[1]:
        raise ArgumentError(f"queries {queries.shape} and states {states.shape} must have rows of one width")
    if ids.shape != near.shape or ids.ndim != 2 or len(ids) != len(queries) or len(owners) != len(states):
        raise ArgumentError(
            f"ids {ids.shape} and near {near.shape} must have a row per query ({len(queries)}), and owners "
            f"{owners.shape} an item per state ({len(states)})"
        )
    if ids.size and not (ids.min() >= -1 and ids.max() < len(states)):
        raise ArgumentError(f"ids must be states in [0, {len(states)}), or -1 for none")
