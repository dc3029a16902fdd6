"""What a preset changes to suit a log, by a few of its statistics.

An encoder registers a function from `LogStatistics` to `Choice`s beside its presets. The rules were learned
on ml-100k, ml-1m-sasrec-order, amazon-beauty-5core and, for repeats, foursquare-nyc, for the item sum also
beauty-s3rec-order and yelp-2020-5core, where each setting was chosen on validation events;
docs/results.md has what they reach on these and other logs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FEW_EVENTS = 20_000
"""Training events below which steps are made of fewer, so that an epoch has enough of them."""
DENSE_ITEMS = 100
"""Training events an item from which weights are pinned down by the log and need little restraint."""
DENSE_EVENTS = 400_000
"""Training events from which a wider network pays as well."""
MANY_ITEMS = 40_000
"""Items with a training event from which "auto", which counts the whole catalog, may sample on a CPU."""
FULL_WORK = 2e10
"""Scores of an epoch, items times training events, up to which the full softmax is waited for all the same:
some three minutes of a CPU core."""
SHORT_HISTORIES = 20
"""Mean training events a user up to which windows of 50 hold nearly all of them."""
REPEATING = 0.2
"""Share of repeats from which the bias of a window's items looks at all of their events."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogStatistics:
    """What the choice of settings reads of a log: its training events alone.

    Attributes:
        users: users with a training event.
        items: items with a training event.
        events: training events.
        repeats: share of the training events whose item the user had before, from 0 to 1.
        zoned: whether local hours are known.
    """

    users: int
    items: int
    events: int
    repeats: float = 0.0
    zoned: bool = False

    @property
    def per_item(self) -> float:
        """Training events an item."""
        return self.events / max(self.items, 1)

    @property
    def per_user(self) -> float:
        """Training events a user."""
        return self.events / max(self.users, 1)

    @property
    def is_dense(self) -> bool:
        """Many events in all and of every item."""
        return self.events >= DENSE_EVENTS and self.per_item >= DENSE_ITEMS

    @property
    def is_sparse(self) -> bool:
        """Short histories."""
        return self.per_user <= SHORT_HISTORIES


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings that a log asks for, and why.

    Attributes:
        encoder, training: fields of the two configurations.
        why: what of the log asks for them, for one line.
    """

    why: str
    encoder: Mapping[str, Any]
    training: Mapping[str, Any]

    def without(self, encoder: Mapping[str, object], training: Mapping[str, object]) -> "Choice":
        """The same, but for what was said otherwise."""
        return Choice(
            self.why,
            {key: value for key, value in self.encoder.items() if key not in encoder},
            {key: value for key, value in self.training.items() if key not in training},
        )

    def __str__(self) -> str:
        settings = {f"encoder.{key}": value for key, value in self.encoder.items()}
        settings |= {f"training.{key}": value for key, value in self.training.items()}
        return f"Chosen for {self.why}: {', '.join(f'{key} = {value}' for key, value in settings.items())}"


def dense(log: LogStatistics, encoder: Mapping[str, Any], training: Mapping[str, Any]) -> list[Choice]:
    """The choice for a dense log, if this is one."""
    if not log.is_dense:
        return []
    return [Choice(f"{log.events:,} training events, {log.per_item:,.0f} an item", encoder, training)]


def sparse(log: LogStatistics, encoder: Mapping[str, Any], training: Mapping[str, Any]) -> list[Choice]:
    """The choice for short histories, if these are."""
    if not log.is_sparse:
        return []
    return [Choice(f"histories of {log.per_user:.1f} training events", encoder, training)]


def full_softmax(log: LogStatistics) -> list[Choice]:
    """The full softmax for a large catalog with few events, of which a sampled one learns far less."""
    if log.items < MANY_ITEMS or log.items * log.events > FULL_WORK:
        return []
    return [Choice(f"{log.items:,} items and {log.events:,} training events", {}, {"loss": "full"})]


def repeating(log: LogStatistics) -> list[Choice]:
    """The choice where users come back to what they had: how often, and at what hour if that is known."""
    if log.repeats < REPEATING:
        return []
    why = f"{log.repeats:.0%} repeats"
    if log.zoned:
        return [Choice(f"{why} at known hours", {"clock": "pool", "repeat_by": "clock"}, {})]
    return [Choice(why, {"repeat_by": "count"}, {})]


def few_events(log: LogStatistics, batch_events: int) -> list[Choice]:
    """Fewer events a step than a preset's ``batch_events`` where an epoch would have less than ten steps."""
    if log.events >= min(FEW_EVENTS, 10 * batch_events):
        return []
    size = 64
    while size * 2 * 10 <= log.events:
        size *= 2
    return [Choice(f"{log.events:,} training events", {}, {"batch_events": min(size, batch_events)})]
