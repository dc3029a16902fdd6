"""Baselines by name: a module each, which registers how it is fitted and with which options.

A fitted baseline gives the scores of all items for rows of an evaluation; `evaluating` ranks them as an
encoder's. It learns from training events alone and reads, at test time, the same history as an encoder.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from recsys.config import build, nearest
from recsys.errors import ArgumentError, ConfigError
from recsys.evaluation.scored import Scores
from recsys.evaluation.spans import Ints, distinct_items
from recsys.evaluation.targets import EvaluationTargets, PreparedLog

__all__ = [
    "Baseline",
    "HistoryBaseline",
    "baseline_configs",
    "baseline_name",
    "baseline_names",
    "fit_baseline",
    "register_baseline",
]

ConfigType = TypeVar("ConfigType")


class Baseline(Protocol):
    """A fitted baseline."""

    def __call__(self, rows: Ints, targets: EvaluationTargets) -> Scores:
        """Scores (b, V) float64 of all items for (b,) int64 rows of the targets."""

    def on(self, store: PreparedLog) -> "Baseline":
        """The same, reading histories in another log of the same catalog."""


Fit = Callable[[PreparedLog, Any], Baseline]

_CONFIGS: dict[str, type[Any]] = {}
_FITS: dict[str, Fit] = {}


def register_baseline(
    name: str, config: type[ConfigType]
) -> Callable[[Callable[[PreparedLog, ConfigType], Baseline]], Callable[[PreparedLog, ConfigType], Baseline]]:
    """Decorate the function that fits a baseline: from prepared data and an instance of ``config``.

    Args:
        name: by which it is asked for, here and in `recsys evaluate --floor`.
        config: frozen dataclass of its options; one class belongs to one name.

    Raises:
        ConfigError: the name or the class is taken.
    """

    def register(
        fit: Callable[[PreparedLog, ConfigType], Baseline],
    ) -> Callable[[PreparedLog, ConfigType], Baseline]:
        if name in _FITS or config in _CONFIGS.values():
            raise ConfigError(f"baseline {name!r} or its options' class is registered already")
        _CONFIGS[name], _FITS[name] = config, fit
        return fit

    return register


def baseline_names() -> list[str]:
    """All registered names, in order."""
    _load()
    return sorted(_FITS)


def baseline_configs(name: str, options: Mapping[str, Any]) -> list[Any]:
    """The configurations that options come to; a list of values makes one for each value.

    Raises:
        ConfigError: an unknown baseline or option, or a value out of range.
    """
    if name not in baseline_names():
        raise ConfigError(f"unknown floor {name!r}{nearest(name, baseline_names())}")
    choices = [value if isinstance(value, list) else [value] for value in options.values()]
    return [
        build(_CONFIGS[name], dict(zip(options, values, strict=True)), where="floor")
        for values in itertools.product(*choices)
    ]


def baseline_name(config: Any) -> str:
    """The name whose options these are.

    Raises:
        ArgumentError: an instance of no registered class.
    """
    _load()
    for name, kind in _CONFIGS.items():
        if type(config) is kind:
            return name
    raise ArgumentError(f"{type(config).__name__} holds the options of no registered baseline")


def fit_baseline(store: PreparedLog, config: Any) -> Baseline:
    """Learn from the training events.

    Args:
        store: prepared data.
        config: an instance of a registered class; `baseline_configs` makes one.

    Raises:
        ArgumentError: the class is not registered, or the baseline cannot be fitted to this log.
    """
    return _FITS[baseline_name(config)](store, config)


class HistoryBaseline:
    """A fitted baseline that scores a history's distinct items, whatever their order.

    Attributes:
        store: the log in which histories are read.
        of_histories: from the distinct items of b histories and their (b+1,) offsets to (b, V) scores.
    """

    def __init__(self, store: PreparedLog, of_histories: Callable[[Ints, Ints], Scores]) -> None:
        self.store = store
        self.of_histories = of_histories

    def __call__(self, rows: Ints, targets: EvaluationTargets) -> Scores:
        """Scores of the rows' users."""
        starts, ends = targets.history_start[rows], targets.history_end[rows]
        return self.of_histories(*distinct_items(self.store.items, starts, ends, self.store.n_items))

    def on(self, store: PreparedLog) -> "HistoryBaseline":
        """The same, reading histories in another log of the same catalog."""
        return HistoryBaseline(store, self.of_histories)


def _load() -> None:
    """Import the modules that register the built-in baselines."""
    from recsys.baselines import ease, item_knn, near_hour, popularity  # noqa: F401
