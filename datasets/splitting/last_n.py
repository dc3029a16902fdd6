"""Test each user on the last events and validate on those before: leave-one-out for more than one."""

from dataclasses import dataclass

import numpy as np

from recsys.datasets.splitting.parts import TEST, TRAIN, VALID, Division, Parts, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class LastN:
    """Each user's last events.

    Attributes:
        valid_events: that validate; 0 for none.
        test_events: that test.
    """

    valid_events: int = 1
    test_events: int = 1

    def __post_init__(self) -> None:
        if self.valid_events < 0 or self.test_events < 1:
            raise ArgumentError(
                f"valid_events={self.valid_events} and test_events={self.test_events}: give at least 0 and 1"
            )


@register_split("last-n", LastN)
def last_n(log: SortedLog, config: LastN) -> Division:
    """Users with no event left to train on only train."""
    return Division(last_events(log, config.valid_events, config.test_events))


def last_events(log: SortedLog, valid: int, test: int) -> Parts:
    """(N,) int8 parts: of each user with more events the last `test` test, the `valid` before validate.

    Where some events alone may be tested these are counted, and the others go with the one before them.
    """
    tested = np.repeat(log.n_targets > valid + test, log.lengths)
    parts = np.full(len(tested), TRAIN, dtype=np.int8)
    from_end = log.from_end
    parts[tested & (from_end < valid + test)] = VALID
    parts[tested & (from_end < test)] = TEST
    return parts
