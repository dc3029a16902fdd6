"""The studies: which part of which log, with what settings, and what its sides read of the events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

__all__ = ["STUDIES", "Side", "Study"]

NEW_YORK = "America/New_York"
NEWS_COLUMNS = "device,os,country,region,environment,referrer"
NEWS_DAYS = ("2017-10-10", "2017-10-13")
"""First day, and the day after the last, by UTC."""
NEWS_USERS = 2
"""One user in so many is taken."""
LEAST_GOOD = 4
"""Stars from which a rating is good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to read the events.

    Attributes:
        name: of the side.
        prepare: options of the preparation besides the study's.
        encoder: settings besides the study's.
    """

    name: str
    prepare: Mapping[str, Any] = field(default_factory=dict)
    encoder: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Sides with equal settings on one log, tested on the same targets.

    Attributes:
        name: of the study.
        log: folder of the log.
        about: which part of the log, and what is tested.
        seen: whether items of the history stay in the ranking of the headline: "kept" or "removed".
        made: from the log as it is to the one that is prepared.
        prepare: options of every side's preparation.
        encoder, training: settings that differ from SASRec's preset `tuned`.
        sides: the first is what the others are compared with.
    """

    name: str
    log: str
    about: str
    seen: str
    made: "Callable[[pl.DataFrame], pl.DataFrame]"
    prepare: Mapping[str, Any]
    encoder: Mapping[str, Any]
    training: Mapping[str, Any]
    sides: tuple[Side, ...]


def rated(log: "pl.DataFrame") -> "pl.DataFrame":
    """Ratings with a weight: a fifth of the stars."""
    import polars as pl

    return log.with_columns(weight=pl.col("rating") / 5)


def rated_to_the_last_good(log: "pl.DataFrame") -> "pl.DataFrame":
    """Each user's ratings up to the last good one, which tests; the good one before it validates.

    The column ``part`` says so, so that a side whose condition leaves out the other ratings and a side that
    trains on all of them have one split. A user with fewer than three good ratings trains alone.
    """
    import polars as pl

    good = pl.col("rating") >= LEAST_GOOD
    ordered = rated(log).sort("user_id", "timestamp", maintain_order=True)
    counted = ordered.with_columns(
        left=good.cast(pl.Int32).reverse().cum_sum().reverse().over("user_id"),
        all=good.sum().over("user_id"),
    )
    valid = (good & (pl.col("left") == 2)) | (~good & (pl.col("left") == 1))
    part = (
        pl.when(pl.col("all") < 3)
        .then(pl.lit("train"))
        .when(good & (pl.col("left") == 1))
        .then(pl.lit("test"))
        .when(valid)
        .then(pl.lit("valid"))
        .otherwise(pl.lit("train"))
    )
    return counted.filter(pl.col("left") > 0).with_columns(part=part).drop("left", "all")


def news(log: "pl.DataFrame") -> "pl.DataFrame":
    """Three days of news, and of their users every second one."""
    import polars as pl

    day = pl.from_epoch("timestamp").dt.date().cast(pl.String)
    first, after = NEWS_DAYS
    return log.filter((day >= first) & (day < after) & (pl.col("user_id") % NEWS_USERS == 0))


def visits(log: "pl.DataFrame") -> "pl.DataFrame":
    """Visits with their local hour and weekday as columns."""
    import polars as pl

    local = pl.from_epoch("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone(NEW_YORK)
    return log.with_columns(hour=local.dt.hour(), weekday=local.dt.weekday())


_RATED: Mapping[str, Any] = {
    "encoder": {"d_model": 64, "dropout": 0.2, "max_length": 100},
    "training": {"epochs": 12, "batch_events": 1024, "learning_rate": 2e-3, "ema_decay": 0.99},
}
_AS_COLUMN = Side(name="rating read as a column", encoder={"event_columns": ["rating"]})
_AS_WEIGHT = Side(name="rating as a weight", prepare={"weight_column": "weight"})
_HOUR: Mapping[str, Any] = {"event_columns": ["hour"], "request_columns": ["hour"]}
_WEEK: Mapping[str, Any] = {"event_columns": ["hour", "weekday"], "request_columns": ["hour", "weekday"]}
_NEWS = NEWS_COLUMNS.split(",")

STUDIES = (
    Study(
        name="ml-100k",
        log="ml-100k",
        about="MovieLens 100K, leave-one-out: each user's last rating is tested",
        seen="removed",
        made=rated,
        prepare={"event_columns": "rating"},
        **_RATED,
        sides=(Side(name="neither"), _AS_COLUMN, _AS_WEIGHT),
    ),
    Study(
        name="ml-100k-good",
        log="ml-100k",
        about="MovieLens 100K, each user's last rating of 4 or 5 is tested, later ones are left out",
        seen="removed",
        made=rated_to_the_last_good,
        prepare={"event_columns": "rating", "split_column": "part"},
        **_RATED,
        sides=(
            Side(name="neither"),
            _AS_COLUMN,
            _AS_WEIGHT,
            Side(name="targets rating>=4", prepare={"target_where": "rating>=4"}),
            Side(
                name="targets rating>=4, rating read as a column",
                prepare={"target_where": "rating>=4"},
                encoder={"event_columns": ["rating"]},
            ),
        ),
    ),
    Study(
        name="globo-news",
        log="globo-news",
        about=f"news of three days from {NEWS_DAYS[0]}, one user in {NEWS_USERS}; the last tenth of the"
        " events is tested, each user's first of them",
        seen="kept",
        made=news,
        prepare={"split": "temporal", "event_columns": NEWS_COLUMNS, "request_columns": NEWS_COLUMNS},
        encoder={"d_model": 64, "dropout": 0.2, "max_length": 50, "item_sum": False},
        training={"epochs": 4, "batch_events": 1024, "learning_rate": 2e-3, "ema_decay": 0.99},
        sides=(
            Side(name="none"),
            Side(name="columns of past events", encoder={"event_columns": _NEWS}),
            Side(name="columns of the request", encoder={"request_columns": _NEWS}),
            Side(name="both", encoder={"event_columns": _NEWS, "request_columns": _NEWS}),
        ),
    ),
    Study(
        name="foursquare-nyc",
        log="foursquare-nyc",
        about="check-ins in New York; the last tenth of the events is tested, each user's first of them",
        seen="kept",
        made=visits,
        prepare={
            "split": "temporal",
            "time_zone": NEW_YORK,
            "event_columns": "hour,weekday",
            "request_columns": "hour,weekday",
        },
        encoder={"d_model": 64, "dropout": 0.2, "max_length": 200, "clock": "off", "repeat_by": "last"},
        training={"epochs": 8, "batch_events": 1024, "learning_rate": 2e-3, "ema_decay": 0.99},
        sides=(
            Side(name="neither"),
            Side(name="hour as a column", encoder=_HOUR),
            Side(name="hour and weekday as columns", encoder=_WEEK),
            Side(name="interest clock", encoder={"clock": "pool"}),
            Side(name="interest clock, and hour as a column", encoder={"clock": "pool", **_HOUR}),
        ),
    ),
)
