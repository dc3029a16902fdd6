"""Tags and words in a column of an item file."""

import ast
import json
from typing import TYPE_CHECKING, Any

from recsys.datasets.reading.columns import exploded
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["no_tags", "tags_of", "words_of"]

_WORD = r"[\p{L}\p{N}]+"


def no_tags() -> "pl.DataFrame":
    """The frame of tags without a row."""
    import polars as pl

    return pl.DataFrame(schema={"row": pl.Int64, "column": pl.String, "name": pl.String, "word": pl.Boolean})


def tags_of(column: "pl.Series", ids: "pl.Series", name: str, kind: str | None, label: str) -> "pl.DataFrame":
    """The tags that each row bears.

    Args:
        column: lists; text, of which ``|`` parts several tags, or blanks where RecBole's type says so, or
            which is a list as JSON or Python write it; whole numbers, or true and false.
        ids: of the rows, for messages.
        name: of the column.
        kind: RecBole's type of it.
        label: of the file.

    Returns:
        Frame as `recsys.datasets.reading.item_features.ItemFeatures.tags`; empty values are no tags.

    Raises:
        DataError: the column holds something else.
    """
    import polars as pl

    values = column
    if isinstance(values.dtype, pl.Array):
        values = values.arr.to_list()
    if values.dtype == pl.Null:
        values = values.cast(pl.String)
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        values = _split(values, ids, name, kind, label)
    inner = values.dtype.inner if isinstance(values.dtype, pl.List) else values.dtype
    if kind in ("float", "float_seq") or not _may_name(inner):
        raise DataError(
            f"{label}: column {name!r} holds {_words_for(inner, kind)}, not tags; put numbers into"
            " named bins first"
        )
    frame = pl.DataFrame({"row": pl.Series(range(column.len()), dtype=pl.Int64), "name": values})
    if isinstance(values.dtype, pl.List):
        frame = exploded(frame, "name")
    if inner.is_float():  # whole numbers with gaps, as pandas has them
        frame = frame.with_columns(pl.col("name").fill_nan(None))
        odd = frame.filter(pl.col("name").is_not_null() & (pl.col("name") != pl.col("name").round()))
        if odd.height or not frame["name"].drop_nulls().is_finite().all():
            raise DataError(
                f"{label}: column {name!r} holds fractions, not tags; put numbers into named bins first"
            )
        frame = frame.with_columns(pl.col("name").cast(pl.Int64))
    return _finished(frame, name, word=False)


def words_of(column: "pl.Series", name: str, label: str) -> "pl.DataFrame":
    """The words of each row's text, in lower case: runs of letters and digits.

    Raises:
        DataError: the column holds no text.
    """
    import polars as pl

    values = column
    if isinstance(values.dtype, pl.List) and values.dtype.inner == pl.String:
        values = values.list.join(" ", ignore_nulls=True)
    if values.dtype in (pl.Categorical, pl.Enum, pl.Null):
        values = values.cast(pl.String)
    if values.dtype != pl.String:
        raise DataError(
            f"{label}: column {name!r} holds {_words_for(values.dtype, None)}, not text; name it for tags"
            " instead"
        )
    words = values.str.to_lowercase().str.extract_all(_WORD)
    frame = pl.DataFrame({"row": pl.Series(range(column.len()), dtype=pl.Int64), "name": words})
    frame = exploded(frame, "name")
    return _finished(frame, name, word=True)


def _finished(frame: "pl.DataFrame", name: str, *, word: bool) -> "pl.DataFrame":
    import polars as pl

    text = pl.col("name").cast(pl.String).str.strip_chars()
    frame = frame.select("row", pl.lit(name).alias("column"), text, pl.lit(word).alias("word"))
    return frame.filter(pl.col("name").str.len_bytes() > 0).unique(maintain_order=True)


def _split(values: "pl.Series", ids: "pl.Series", name: str, kind: str | None, label: str) -> "pl.Series":
    """Lists of the tags in texts."""
    import polars as pl

    if kind == "token_seq":
        return values.str.split(" ")
    filled = values.drop_nulls().str.strip_chars()
    filled = filled.filter(filled != "")
    if filled.len() and (filled.str.starts_with("[") & filled.str.ends_with("]")).all():
        found = [
            None if text is None else _listed(text, ids[row], name, label) for row, text in enumerate(values)
        ]
        return pl.Series(found, dtype=pl.List(pl.String))
    return values.str.split("|")


def _listed(text: str, item: Any, name: str, label: str) -> list[str | None]:
    if not text.strip():
        return []
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(found, list) and not any(isinstance(value, list | dict) for value in found):
            return [None if value is None else str(value) for value in found]
    raise DataError(
        f"{label}: column {name!r} holds {text[:60]!r} for item {item!r}, which is no list of tags"
    )


def _may_name(kind: Any) -> bool:
    """Whether values of a type can be tags."""
    import polars as pl

    named = (pl.String, pl.Boolean, pl.Categorical, pl.Enum, pl.Date)
    return kind in named or kind.is_integer() or kind.is_float()


def _words_for(kind: Any, stated: str | None) -> str:
    """What a column holds, for messages."""
    if stated in ("float", "float_seq") or kind.is_numeric():
        return "numbers"
    if kind.is_nested():
        return "lists of lists or records" if str(kind).startswith(("List", "Array")) else "records"
    return "times" if kind.is_temporal() else "bytes or objects"
