"""What a model may read of items: tags, words and vectors, out of an item file, row by row as it stands.

A tag is one value of a column: a genre, a brand, an author. Words are the tags of a text. A vector is what
somebody else's model made of a text or a picture; it is kept as it is, in half precision.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.reading.item_metadata import ItemFile
from recsys.datasets.reading.item_tags import no_tags, tags_of, words_of
from recsys.datasets.reading.item_vectors import given_vectors
from recsys.datasets.schema import ITEM, nearest
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ItemFeatures", "Vectors", "read_item_features"]

Vectors = str | Path | NDArray[Any] | Callable[[list[str]], Any]
"""Where vectors come from: a .npy file or a column, an array, or a function of texts."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ItemFeatures:
    """Features of R rows of an item file.

    Attributes:
        label: name of the file for messages.
        ids: (R,) ids, text or whole numbers, each once.
        tags: frame ``row`` int64, ``column``, ``name``, ``word`` bool: which row bears which tag, each once.
        columns: the columns of tags and of words, in the order asked for.
        vectors: (R, p) float16, or None.
        known: (R,) bool, rows that have a vector.
        digest: hex sha256 of all of it.
    """

    label: str
    ids: "pl.Series"
    tags: "pl.DataFrame"
    columns: tuple[str, ...]
    vectors: NDArray[np.float16] | None
    known: NDArray[np.bool_]
    digest: str


def read_item_features(
    items: ItemFile, *, tags: tuple[str, ...], words: tuple[str, ...], vectors: Vectors | None
) -> ItemFeatures:
    """Take tags, words and vectors out of an item file.

    Args:
        items: the file; every row must name an item that no other names.
        tags: columns whose values are tags: lists, RecBole's ``token_seq``, or text with ``|`` between.
        words: columns of text, whose words are tags.
        vectors: a path that ends in .npy, with a row for each of the file's; the name of a column of lists of
            numbers, or of text with blanks or commas between them; an array; or a function that makes an
            array (n, p) of n texts: the columns of ``words``, or the title where there are none.

    Raises:
        ArgumentError: a column is named twice, or what gives vectors is of another kind.
        DataError: a column is not there or holds something else; an id is missing or stands there twice; a
            vector has another width than the first, holds NaN or is too large.
    """
    import polars as pl

    ids = _ids(items)
    both = next((name for name in words if name in tags), None)
    if both is not None:
        raise ArgumentError(f"column {both!r} is named for tags and for words: leave it out of item_words=")
    frames = [no_tags()]
    for name in tags:
        column = _column(items, name)
        frames.append(tags_of(items.frame[column], ids, name, items.types.get(column), items.label))
    frames += [words_of(items.frame[_column(items, name)], name, items.label) for name in words]
    found = pl.concat(frames)
    made, known = None, np.zeros(ids.len(), dtype=bool)
    if vectors is not None:
        source: Any = vectors
        if isinstance(vectors, str) and not vectors.endswith(".npy"):
            source = items.frame[_column(items, vectors)].alias(vectors)
        elif callable(vectors):
            source = vectors, _texts(items, words)
        elif items.long:
            raise DataError(
                f"{items.label}: has a line for each feature, so rows of an array belong to none of them;"
                " give vectors as a column or a function"
            )
        made, known = given_vectors(source, ids, items.label)
    return ItemFeatures(
        label=items.label,
        ids=ids,
        tags=found,
        columns=tags + words,
        vectors=made,
        known=known,
        digest=_digest(ids, found, made),
    )


def _ids(items: ItemFile) -> "pl.Series":
    """The ids of all rows, as `ItemFeatures.ids`."""
    import polars as pl

    ids = items.frame[ITEM]
    text = ids.cast(pl.String).str.strip_chars()
    empty = text.is_null() | (text == "")
    if empty.any():
        raise DataError(f"{items.label}: row {int(empty.arg_max() or 0) + 1} has no item id; fill it in")
    twice = text.is_duplicated()
    if twice.any():
        name = text.filter(twice)[0]
        rows = (text == name).arg_true().to_list()
        raise DataError(
            f"{items.label}: item {name!r} stands in rows {rows[0] + 1} and {rows[1] + 1}; keep one of them"
        )
    if not ids.len():
        raise DataError(f"{items.label}: holds no item")
    return text if ids.dtype == pl.String else ids


def _column(items: ItemFile, name: str) -> str:
    """The frame's name of a column."""
    found = name if name in items.frame.columns else items.names.get(name)
    if found == ITEM:
        raise DataError(f"{items.label}: column {name!r} holds the ids, which say nothing of an item")
    if found is not None:
        return found
    others = [column for column in items.names if items.names[column] != ITEM]
    close = nearest(name, others)
    hint = f"did you mean {close!r}?" if close else f"there are {', '.join(others[:12]) or 'ids alone'}"
    raise DataError(f"{items.label}: has no column {name!r}; {hint}")


def _texts(items: ItemFile, words: tuple[str, ...]) -> list[str]:
    """A text for each row: the columns of words, else the title."""
    import polars as pl

    if not words and "title" not in items.frame.columns:
        raise DataError(f"{items.label}: has no title to make vectors of; name columns with item_words=")
    columns = [pl.col(_column(items, name)).cast(pl.String) for name in words or ("title",)]
    return items.frame.select(pl.concat_str(columns, separator=" ", ignore_nulls=True)).to_series().to_list()


def _digest(ids: "pl.Series", tags: "pl.DataFrame", vectors: NDArray[np.float16] | None) -> str:
    digest = hashlib.sha256()
    for frame in (ids.to_frame(), tags):
        for start in range(0, frame.height, 1_000_000):
            text = io.StringIO()
            frame.slice(start, 1_000_000).write_csv(text)
            digest.update(text.getvalue().encode())
    if vectors is not None:
        digest.update(f"{vectors.shape}".encode())
        digest.update(np.ascontiguousarray(vectors).data)
    return digest.hexdigest()
