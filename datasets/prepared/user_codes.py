"""Codes of events beside the codes of their users, put together where they are read."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["CodeRows", "with_users"]


class CodeRows(Protocol):
    """Codes by the positions of events: an array, or what makes its rows."""

    def __getitem__(self, rows: Any, /) -> NDArray[np.integer]:
        """(n, columns) codes of the events at positions (n,), or of a slice of events."""


class _Joined:
    """Rows of an array over events, each followed by its user's."""

    def __init__(
        self, own: NDArray[np.integer] | None, users: NDArray[np.integer], offsets: NDArray[np.int64]
    ) -> None:
        self._own, self._users, self._offsets = own, users, offsets

    def __getitem__(self, rows: Any, /) -> NDArray[np.integer]:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(int(self._offsets[-1])))
        of_users = np.asarray(self._users[np.searchsorted(self._offsets, rows, side="right") - 1])
        return of_users if self._own is None else np.concatenate((self._own[rows], of_users), axis=1)


def with_users(
    own: NDArray[np.integer] | None, users: NDArray[np.integer] | None, offsets: NDArray[np.int64]
) -> CodeRows | None:
    """Codes of events followed by those of their users; None where there are neither.

    Args:
        own: (N, E), or None.
        users: (U, C), or None.
        offsets: (U+1,) first position of each user's events.
    """
    return own if users is None else _Joined(own, users, offsets)
