"""Histories as padded rows, and what a library has learned as a file. Runs in a peer's environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def last_windows(
    histories: Sequence[Any], length: int, *, padding: int
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """(n, length) int64: the last ``length`` items of each history, padded in front."""
    rows = np.full((len(histories), length), padding, dtype=np.int64)
    for row, items in zip(rows, histories, strict=True):
        recent = items[-length:]
        row[length - len(recent) :] = recent
    return rows


def save_vectors(path: str, log: str, users: Any, states: Any, known: Any, vectors: Any) -> None:
    """Write the file that `pace.QualitySide.measure` promises.

    Args:
        path: of the NPZ.
        log: as in `Task`; its ids count from 1.
        users: (n,) ids of the users who have a state; the others' are zero.
        states: (n, d) float32.
        known: (m,) ids of the items that the library was trained on.
        vectors: (m, d) float32.
    """
    ids = np.load(log)
    everyone, items = int(ids[:, 0].max()), int(ids[:, 1].max())
    written = {
        "states": np.zeros((everyone, states.shape[1]), dtype=np.float32),
        "items": np.zeros((items, vectors.shape[1]), dtype=np.float32),
        "known": np.zeros(items, dtype=bool),
    }
    written["states"][np.asarray(users, dtype=np.int64) - 1] = states
    places = np.asarray(known, dtype=np.int64) - 1
    written["items"][places] = vectors
    written["known"][places] = True
    np.savez(path, **written)  # type: ignore[arg-type]
