"""Cut each user's events by shares: the last tenth tests, the tenth before validates."""

from dataclasses import dataclass

import numpy as np

from recsys.datasets.splitting.parts import TEST, TRAIN, VALID, Division, Ints, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Shares of each user's events.

    Attributes:
        valid_fraction: that validate; 0 for none.
        test_fraction: that test.
    """

    valid_fraction: float = 0.1
    test_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not (
            self.valid_fraction >= 0 < self.test_fraction and self.valid_fraction + self.test_fraction < 1
        ):
            raise ArgumentError(
                f"valid_fraction={self.valid_fraction} and test_fraction={self.test_fraction}: the first must"
                " be at least 0, the second above 0 and their sum below 1"
            )


@register_split("ratio", Ratio)
def ratio(log: SortedLog, config: Ratio) -> Division:
    """Shares are rounded down, but at least one event where the share is above 0.

    Users with no event left to train on only train.
    """
    test = _share(log.lengths, config.test_fraction)
    valid = _share(log.lengths, config.valid_fraction)
    short = test + valid >= log.lengths
    test[short] = valid[short] = 0
    parts = np.full(int(log.offsets[-1]), TRAIN, dtype=np.int8)
    from_end = log.from_end
    parts[from_end < np.repeat(test + valid, log.lengths)] = VALID
    parts[from_end < np.repeat(test, log.lengths)] = TEST
    return Division(parts)


def _share(lengths: Ints, share: float) -> Ints:
    # 0.29 of 100 is 29, whatever binary fractions make of it.
    counts: Ints = np.floor(lengths * share + 1e-9).astype(np.int64)
    return np.maximum(counts, 1) if share > 0 else counts
