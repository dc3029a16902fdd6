"""Read what is known of users, a line for each: Parquet, CSV, JSON lines or MovieLens files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.datasets.collecting import reading
from recsys.datasets.folders import with_home
from recsys.datasets.reading.columns import scan_columns
from recsys.datasets.reading.frames import as_frame
from recsys.datasets.reading.options import ReadOptions
from recsys.datasets.reading.text_formats import check_file, detect_layout
from recsys.datasets.schema import USER, find_column, nearest
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["UserFile", "read_user_file"]

_MOVIELENS = {
    "u.user": ("|", ("age", "gender", "occupation", "zip_code")),
    "users.dat": ("::", ("gender", "age", "occupation", "zip_code")),
}
"""Files without a header by name: what parts their columns, and the columns behind the id."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UserFile:
    """Columns of users.

    Attributes:
        label: its path, or "users" for a frame.
        frame: ``user_id`` and the columns that were asked for.
    """

    label: str
    frame: "pl.DataFrame"


def read_user_file(users: Any, wanted: Sequence[str]) -> UserFile:
    """Read columns of a file of users.

    Args:
        users: Parquet, CSV/TSV, JSON lines, RecBole ``.user``, MovieLens ``u.user`` or ``users.dat``; or what
            `as_frame` takes.
        wanted: names of the columns.

    Raises:
        DataError: it cannot be read, has no user column, or lacks a column.
    """
    given = as_frame(users)
    label = str(users) if given is None else "users"
    frame = given.lazy().collect() if given is not None else _read(users, label)
    user = find_column(USER, frame.columns)
    if user is None:
        raise DataError(f"{label}: no user column among {', '.join(frame.columns[:12])}; name it {USER}")
    for name in wanted:
        if name == user:
            raise DataError(
                f"{label}: column {name!r} names the users themselves, of whom nothing could be learned for"
                " others; leave it out of user_columns="
            )
        if name not in frame.columns:
            close = nearest(name, frame.columns)
            hint = f"; did you mean {close!r}?" if close else ""
            known = ", ".join(frame.columns[:12])
            raise DataError(f"{label}: no column {name!r}; the columns are {known}{hint}")
    if not frame.height:
        raise DataError(f"{label}: has no line of a user")
    return UserFile(label=label, frame=frame.select(user, *wanted).rename({user: USER}))


def _read(users: Any, label: str) -> "pl.DataFrame":
    source = with_home(users)
    check_file(source)
    if source.name in _MOVIELENS:
        return _movielens(source.read_bytes(), *_MOVIELENS[source.name], label)
    layout = detect_layout(source, ReadOptions())
    if layout.columns and not layout.header:
        raise DataError(f"{label}: a file of users needs a header line that names {USER} and the columns")
    with reading(label, source, layout.separator):
        return scan_columns(source, layout).collect()


def _movielens(content: bytes, separator: str, names: tuple[str, ...], label: str) -> "pl.DataFrame":
    import polars as pl

    lines = content.decode("latin-1").replace("\r\n", "\n").split("\n")
    rows = [line.split(separator) for line in lines if line.strip()]
    bad = next((row for row in rows if len(row) != 1 + len(names)), None)
    if bad is not None:
        raise DataError(f"{label}: {separator.join(bad)!r} is not {separator.join((USER, *names))}")
    schema = dict.fromkeys((USER, *names), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")
