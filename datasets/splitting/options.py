"""How a log is to be split: each option once, for functions, commands and meta.json."""

from dataclasses import dataclass, fields
from typing import Any, TypedDict

from recsys.datasets.keywords import check_types, option

__all__ = ["SplitKeywords", "SplitOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """Which split and what it takes; None is the split's own default, or not given.

    Attributes:
        split: name of a split, see `recsys.datasets.splitting.registry`.
        valid_fraction: temporal: share of all events that validate (0.1); ratio: of each user's.
        test_fraction: the same for the test part.
        valid_time: temporal: unix seconds of the first cut instead of shares.
        test_time: temporal: unix seconds of the second cut.
        valid_events: last-n: events of each user that validate (1).
        test_events: last-n: events of each user that test (1).
        folds: k-fold: number of folds (5).
        fold: k-fold: which one tests, from 1.
        fold_by: k-fold: "users" are held out, or "events" from the end of each history.
        split_column: column: name of the column that holds train, valid or test.
        valid: own validation file (or frame) beside the log; makes the split "files".
        test: own test file (or frame) beside the log.

    Raises:
        ArgumentError: a value is of the wrong type.
    """

    split: str = option(
        "leave-one-out", "leave-one-out, temporal, last-n, ratio, k-fold, or column (with --split-column)."
    )
    valid_fraction: float | None = option(
        None, "Share that validates, of all events (temporal) or each user's (ratio); 0.1 if left out."
    )
    test_fraction: float | None = option(None, "Share that tests, likewise.")
    valid_time: int | None = option(None, "Temporal: unix seconds of the first validation event instead.")
    test_time: int | None = option(None, "Temporal: unix seconds of the first test event.")
    valid_events: int | None = option(None, "Last-n: events of each user that validate; 1 if left out.")
    test_events: int | None = option(None, "Last-n: events of each user that test; 1 if left out.")
    folds: int | None = option(None, "K-fold: number of folds; 5 if left out.")
    fold: int | None = option(None, "K-fold: the fold that tests, from 1.")
    fold_by: str | None = option(
        None, "K-fold: users (held out whole, the default) or events (ever earlier ends of each history)."
    )
    split_column: str | None = option(None, "Column that says train, valid or test.")
    valid: Any = option(None, "Own validation file; LOG then holds the training events alone.")
    test: Any = option(None, "Own test file; LOG then holds the training events alone.")

    def __post_init__(self) -> None:
        check_types(self)

    def given(self) -> dict[str, Any]:
        """The options besides the name that are not None."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "split"}
        return {name: value for name, value in values.items() if value is not None}


class SplitKeywords(TypedDict, total=False):
    """The fields of `SplitOptions` as keywords."""

    split: str
    valid_fraction: float | None
    test_fraction: float | None
    valid_time: int | None
    test_time: int | None
    valid_events: int | None
    test_events: int | None
    folds: int | None
    fold: int | None
    fold_by: str | None
    split_column: str | None
    valid: Any
    test: Any
