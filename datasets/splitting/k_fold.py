"""Cross-validation: users held out fold by fold, or histories that end ever earlier."""

from dataclasses import dataclass

import numpy as np

from recsys.datasets.splitting.parts import LEFT_OUT, TEST, TRAIN, VALID, Division, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.errors import ArgumentError

BY = ("users", "events")


@dataclass(frozen=True, slots=True, kw_only=True)
class KFold:
    """One fold of several.

    Attributes:
        folds: how many there are.
        fold: which one tests, 1..folds.
        fold_by: "users": a drawn share of the users, the same on every machine, is held out whole and tested
            on the last event after all their others. "events": the fold-th of the last `folds`
            events of each user tests, the one before validates, and what follows is left out; the last fold
            is leave-one-out.
    """

    folds: int = 5
    fold: int = 1
    fold_by: str = "users"

    def __post_init__(self) -> None:
        if self.folds < 2 or not 1 <= self.fold <= self.folds:
            raise ArgumentError(
                f"folds={self.folds} and fold={self.fold}: give at least 2 folds and a fold of 1 to folds"
            )
        if self.fold_by not in BY:
            raise ArgumentError(f"fold_by={self.fold_by!r} is not known: choose {' or '.join(BY)}")


@register_split("k-fold", KFold)
def k_fold(log: SortedLog, config: KFold) -> Division:
    """Test one fold. Items that only the held-out events have are dropped and counted."""
    if config.fold_by == "events":
        return _by_events(log, config)
    return _by_users(log, config)


def _by_users(log: SortedLog, config: KFold) -> Division:
    n_users = len(log.lengths)
    if n_users < config.folds:
        raise ArgumentError(f"folds={config.folds}, but the log has {n_users} users: pass fewer folds")
    held_out = np.random.default_rng(0).permutation(n_users) % config.folds == config.fold - 1
    held = np.repeat(held_out, log.lengths)
    from_end = log.from_end
    parts = np.full(len(held), TRAIN, dtype=np.int8)
    # What comes before a held-out user's last event is history that never trains.
    parts[held] = VALID
    parts[held & (from_end == 0)] = TEST
    validates = np.repeat(~held_out & (log.lengths >= 3), log.lengths)
    parts[validates & (from_end == 0)] = VALID
    return Division(parts, drop_cold=True, facts={"held_out_users": int(np.count_nonzero(held_out))})


def _by_events(log: SortedLog, config: KFold) -> Division:
    follow = config.folds - config.fold  # events after the tested one
    from_end = log.from_end
    parts = np.full(len(from_end), TRAIN, dtype=np.int8)
    tested = np.repeat(log.lengths - follow >= 3, log.lengths)
    parts[tested & (from_end == follow + 1)] = VALID
    parts[tested & (from_end == follow)] = TEST
    parts[from_end < follow] = LEFT_OUT
    left_out = int(np.count_nonzero(parts == LEFT_OUT))
    nothing = ArgumentError(
        f"folds={config.folds}: no user has so many events; pass fewer folds or a later fold"
    )
    return Division(parts, drop_cold=True, facts={"later_events_left_out": left_out}, untrained=nothing)
