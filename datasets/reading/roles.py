"""Which column of a log plays which role: the user, the item, the time."""

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.schema import ITEM, TIMESTAMP, USER, find_column, nearest
from recsys.errors import DataError

_OPTIONS = {USER: "user_column", ITEM: "item_column", TIMESTAMP: "timestamp_column"}
_WORDS = {USER: "user", ITEM: "item", TIMESTAMP: "time"}


@dataclass(frozen=True, slots=True)
class Roles:
    """Names of the columns; `time` is None where the order of rows is the order of events."""

    user: str
    item: str
    time: str | None


def choose_roles(
    options: ReadOptions,
    columns: Sequence[str],
    label: str,
    *,
    guessed: dict[str, str],
    by_rows: bool,
    others: dict[str, str] | None = None,
) -> Roles:
    """Choose the columns of a log.

    Args:
        options: which columns are named.
        columns: all there are.
        label: the file as messages name it.
        guessed: role to column of a file without a header.
        by_rows: whether the order of rows may stand for times.
        others: further columns that have to be there, by what they are for.

    Raises:
        DataError: a column is not there, cannot be found, or has two roles.
    """
    further = others or {}
    for name in further.values():
        _require(name, columns, label)
    user = _choose(USER, options.user_column, guessed, columns, label)
    item = _choose(ITEM, options.item_column, guessed, columns, label)
    time = None
    if options.timestamp_column is not None or not by_rows:
        time = _choose(TIMESTAMP, options.timestamp_column, guessed, columns, label)
    _refuse_shared({USER: user, ITEM: item, TIMESTAMP: time, **further}, options, label)
    return Roles(user, item, time)


def guess_notice(label: str, roles: Roles, options: ReadOptions, columns: Sequence[str]) -> str | None:
    """One line that says what was taken of a file without a header; None where every role was named."""
    chosen = {USER: roles.user, ITEM: roles.item, TIMESTAMP: roles.time}
    if all(getattr(options, _OPTIONS[role]) is not None for role, column in chosen.items() if column):
        return None
    taken = ", ".join(f"{column} as {_WORDS[role]}" for role, column in chosen.items() if column)
    left = [column for column in columns if column not in chosen.values()]
    unused = f"; not used: {', '.join(left[:12])}{', ...' if len(left) > 12 else ''}" if left else ""
    return f"{label}: no header line; taken {taken}{unused}; name the columns to choose others"


def _refuse_shared(chosen: dict[str, str | None], options: ReadOptions, label: str) -> None:
    by_column: dict[str, list[str]] = {}
    for role, column in chosen.items():
        if column is not None:
            by_column.setdefault(column, []).append(role)
    for column, roles in by_column.items():
        if len(roles) > 1 and USER in roles and any(role.endswith(" of users") for role in roles):
            raise DataError(
                f"{label}: column {column!r} names the users themselves, of whom nothing could be learned for"
                " others; leave it out of user_columns="
            )
        if len(roles) > 1:
            loose = [role for role in roles if getattr(options, _OPTIONS.get(role, ""), "named") is None]
            remedy = f"{_OPTIONS[(loose or roles)[0]]}="
            words = " and ".join(_WORDS.get(role, role) for role in roles)
            left = "leave it out there, or " if len(roles) > sum(role in _WORDS for role in roles) else ""
            raise DataError(
                f"{label}: column {column!r} is both {words}; {left}name another column with {remedy}"
            )


def _choose(role: str, asked: str | None, guessed: dict[str, str], columns: Sequence[str], label: str) -> str:
    if asked is not None:
        return _require(asked, columns, label)
    found = guessed.get(role) or find_column(role, columns)
    if found is not None:
        return found
    close = nearest(role, columns)
    hint = f", perhaps {close}" if close else ""
    also = ""
    if role == TIMESTAMP:
        also = ", or pass time_unit='order' to take the order of the rows"
        if guessed and len(columns) > 2:
            also += ", or format='sequences' for lines of a user and the items in their order"
    elif guessed.get(TIMESTAMP):
        also = f"; {guessed[TIMESTAMP]} looks like the time"
    remedy = f"name it with {_OPTIONS[role]}={hint}{also}"
    raise DataError(f"{label}: no {role} column among {_listed(columns)}; {remedy}")


def _require(asked: str, columns: Sequence[str], label: str) -> str:
    if asked in columns:
        return asked
    close = nearest(asked, columns)
    hint = f"; did you mean {close!r}?" if close else ""
    raise DataError(f"{label}: no column {asked!r}; the columns are {_listed(columns)}{hint}")


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
