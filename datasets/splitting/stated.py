"""Parts as the log itself states them, by a column or by own files."""

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.splitting.parts import TEST, TRAIN, VALID, Division, Parts, SortedLog
from recsys.errors import DataError

_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "valid": VALID,
    "validation": VALID,
    "val": VALID,
    "dev": VALID,
    "test": TEST,
    "testing": TEST,
}


def parts_of(values: list[str], codes: NDArray[np.int32], where: str) -> Parts:
    """The part of each event by the words of a split column.

    Args:
        values: distinct words.
        codes: (N,) int32 place of each event's word.
        where: file and column, for messages.

    Raises:
        DataError: a word names no part.
    """
    parts = []
    for value in values:
        part = _NAMES.get(value.strip().lower())
        if part is None:
            raise DataError(f"{where} holds {value!r}: write train, valid or test")
        parts.append(part)
    return np.array(parts, dtype=np.int8)[codes]


def stated(log: SortedLog) -> Division:
    """Give each event the part that the log states; items that never train are dropped from the others.

    Raises:
        DataError: parts contradict time.
    """
    assert log.stated is not None
    _check_order(log)
    nothing = DataError("the split leaves no training event; some must be marked train")
    return Division(log.stated, drop_cold=True, untrained=nothing)


def _check_order(log: SortedLog) -> None:
    """Refuse parts that contradict time: a model would be tested on what came before its training."""
    if log.timestamps is None:
        return
    falls = log.timestamps[1:] < log.timestamps[:-1]
    falls[log.offsets[1:-1] - 1] = False
    if falls.any():
        users = np.unique(np.searchsorted(log.offsets, np.flatnonzero(falls), side="right"))
        raise DataError(
            f"{len(users)} users have validation or test events that lie before their training events; move"
            " these, or pass time_unit='order' to let the parts decide"
        )
