"""Cut all users' events at the same two moments, as a system in use would see them."""

from dataclasses import dataclass

import numpy as np

from recsys.datasets.splitting.parts import TEST, TRAIN, VALID, Division, Ints, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.errors import ArgumentError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Temporal:
    """Two moments, by shares of events or as they are.

    Attributes:
        valid_fraction: share of the events that validation shall hold, met as nearly as ties of time allow.
        test_fraction: share of the events that the test part shall hold.
        valid_time: unix seconds of the first cut; None to choose it by the shares.
        test_time: unix seconds of the second cut; both times or neither.
    """

    valid_fraction: float | None = None
    test_fraction: float | None = None
    valid_time: int | None = None
    test_time: int | None = None

    def __post_init__(self) -> None:
        if (self.valid_time is None) != (self.test_time is None):
            raise ArgumentError("valid_time and test_time go together: pass both or neither")
        if self.valid_time is not None and self.test_time is not None:
            if self.valid_fraction is not None or self.test_fraction is not None:
                raise ArgumentError("valid_time and test_time leave no room for fractions: pass either")
            if self.valid_time >= self.test_time:
                raise ArgumentError(
                    f"valid_time={self.valid_time} is not before test_time={self.test_time}:"
                    " validation must come first"
                )
            return
        valid, test = self.shares
        if not (valid > 0 and test > 0 and valid + test < 1):
            raise ArgumentError(
                f"valid_fraction={valid} and test_fraction={test}: both must be above 0 and their sum below 1"
            )

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of validation and test, each a tenth unless given."""
        return (
            0.1 if self.valid_fraction is None else self.valid_fraction,
            0.1 if self.test_fraction is None else self.test_fraction,
        )


@dataclass(frozen=True, slots=True)
class TemporalCuts:
    """Unix seconds: an event at or after a cut belongs to the later part."""

    valid_time: int
    test_time: int


@register_split("temporal", Temporal)
def temporal(log: SortedLog, config: Temporal) -> Division:
    """Events at or after a cut belong to the later part; items that never train are dropped from it."""
    if log.timestamps is None:
        raise ArgumentError("split='temporal' needs times; this log has the order of events alone")
    return divided_at(log.timestamps, temporal_cuts(log.timestamps, config))


def divided_at(timestamps: Ints, cuts: TemporalCuts) -> Division:
    """(N,) events at or after a cut belong to the later part."""
    parts = np.full(len(timestamps), TRAIN, dtype=np.int8)
    parts[timestamps >= cuts.valid_time] = VALID
    parts[timestamps >= cuts.test_time] = TEST
    return Division(parts, drop_cold=True, facts={"valid_time": cuts.valid_time, "test_time": cuts.test_time})


def temporal_cuts(timestamps: Ints, config: Temporal) -> TemporalCuts:
    """Choose two moments that cut all users' events alike.

    Args:
        timestamps: (N,) int64 unix seconds, in any order.
        config: shares or moments.

    Raises:
        DataError: the cuts leave a part without an event.
    """
    if config.valid_time is not None and config.test_time is not None:
        cuts = TemporalCuts(int(config.valid_time), int(config.test_time))
    else:
        places = list(cut_places(len(timestamps), config))
        ordered = np.partition(timestamps, places)
        cuts = TemporalCuts(int(ordered[places[0]]), int(ordered[places[1]]))
    n_train = int(np.count_nonzero(timestamps < cuts.valid_time))
    n_test = int(np.count_nonzero(timestamps >= cuts.test_time))
    refuse_empty_part(cuts, n_train, len(timestamps) - n_train - n_test, n_test)
    return cuts


def cut_places(n_events: int, config: Temporal) -> tuple[int, int]:
    """Places, in the order of time, of the two events whose times are the cuts."""
    valid, test = config.shares
    return int(n_events * (1 - valid - test)), int(n_events * (1 - test))


def refuse_empty_part(cuts: TemporalCuts, n_train: int, n_valid: int, n_test: int) -> None:
    """Refuse cuts that leave a part without an event.

    Raises:
        DataError: they do.
    """
    for name, count in (("training", n_train), ("validation", n_valid), ("test", n_test)):
        if not count:
            raise DataError(
                f"the temporal split leaves no {name} event (cuts at {cuts.valid_time} and"
                f" {cuts.test_time}); pass other fractions or times"
            )
