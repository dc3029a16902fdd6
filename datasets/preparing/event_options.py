"""What is taken of an event besides user, item and time: the options of a preparation."""

from dataclasses import dataclass
from typing import Any, TypedDict

from recsys.datasets.keywords import check_types, column_names, option
from recsys.datasets.preparing.event_conditions import Condition
from recsys.errors import ArgumentError

__all__ = ["LOCAL_HOUR", "EventKeywords", "EventOptions"]

LOCAL_HOUR = "local_hour"
"""The column that no log need have: models read it of local times, which need a time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOptions:
    """Which further columns of a log are kept, and as what.

    Attributes:
        event_columns: columns of what came with an event, as a list or with commas between; ``local_hour`` is
            the hour of its local time. A model may read them of events that happened, and never of the one to
            be predicted.
        request_columns: columns of what is known when an answer is asked for. A model may read them of the
            event to be predicted. A column may be of both kinds.
        weight_column: column of how much an event counts in training, 0 or more.
        target_where: ``column=value,value``, ``column!=value,value`` or ``column>=number`` (``<=``, ``>``,
            ``<``): these events are predicted and tested; the others, and those without a value, are read
            alone.
        user_columns: columns of what is known of users. A model may read them of anyone it answers.
        users: file or frame that has them, a line for each user; None takes them from the log, of each user
            the last value that its training events have.
        shown_column: column of the items that were shown, lists of ids or text with | between. A row with a
            slate and without an item says that nothing of it was taken.

    Raises:
        ArgumentError: a name is empty or stands there twice, or the condition cannot be read; or a file of
            users of which no column is named.
    """

    event_columns: Any = option(None, "Columns of what came with an event, with commas: action,device.")
    request_columns: Any = option(None, "Columns of what is known when an answer is asked for: device.")
    weight_column: str | None = option(None, "Column of how much an event counts in training, 0 or more.")
    target_where: str | None = option(
        None, "Predict these events alone, the others are context: action=cart,purchase, or 'rating>=4'."
    )
    user_columns: Any = option(None, "Columns of what is known of users, with commas: age,region.")
    users: Any = option(None, "File that has these columns, a line for each user; else the log has them.")
    shown_column: str | None = option(
        None, "Column of the items that were shown, with | between; rows without an item took none of them."
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("event_columns", "request_columns", "user_columns"):
            column_names(getattr(self, name), name)
        if self.users is not None and self.user_columns is None:
            raise ArgumentError(
                "users= gives a file of which nothing is taken: name columns by user_columns="
            )
        for name in ("weight_column", "shown_column"):
            column = getattr(self, name)
            if column is not None and not column.strip():
                raise ArgumentError(f"{name}='' names no column")
        if self.target_where is not None:
            Condition.read(self.target_where)

    @property
    def events(self) -> tuple[str, ...]:
        """Names of the columns of what came with an event."""
        return _of_log(column_names(self.event_columns, "event_columns"))

    @property
    def requests(self) -> tuple[str, ...]:
        """Names of the columns of what is known when an answer is asked for."""
        return _of_log(column_names(self.request_columns, "request_columns"))

    @property
    def hours(self) -> tuple[str, ...]:
        """The options that name the local hour."""
        names = ("event_columns", "request_columns")
        return tuple(name for name in names if LOCAL_HOUR in column_names(getattr(self, name), name))

    @property
    def of_users(self) -> tuple[str, ...]:
        """Names of the columns of what is known of users."""
        return column_names(self.user_columns, "user_columns")

    @property
    def of_users_in_log(self) -> tuple[str, ...]:
        """Those of them that the log has."""
        return self.of_users if self.users is None else ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The options that ask for something."""
        names = (
            "event_columns",
            "request_columns",
            "weight_column",
            "target_where",
            "shown_column",
            "user_columns",
        )
        kept = {"event_columns": self.events, "request_columns": self.requests}
        return tuple(name for name in names if getattr(self, name) is not None and kept.get(name, True))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the log that are read, each once."""
        names = [*self.events, *self.requests, *self.of_users_in_log]
        names += [self.weight_column] if self.weight_column is not None else []
        names += [Condition.read(self.target_where).column] if self.target_where is not None else []
        names += [self.shown_column] if self.shown_column is not None else []
        return tuple(dict.fromkeys(names))

    def record(self) -> dict[str, Any]:
        """As meta.json holds it; nothing where nothing was asked for."""
        found: dict[str, Any] = {
            name: list(column_names(getattr(self, name), name))
            for name in ("event_columns", "request_columns", "user_columns")
            if getattr(self, name) is not None
        }
        alone = ("weight_column", "target_where", "shown_column")
        return found | {name: getattr(self, name) for name in alone if getattr(self, name) is not None}


def _of_log(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != LOCAL_HOUR)


class EventKeywords(TypedDict, total=False):
    """The fields of `EventOptions` as keywords."""

    event_columns: Any
    request_columns: Any
    weight_column: str | None
    target_where: str | None
    user_columns: Any
    users: Any
    shown_column: str | None
