"""Items that come after a log was prepared, by the features that the log's items were prepared with."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.item_features import TAGS, ItemFeatures
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary
from recsys.datasets.preparing.item_features import fitting_ids, tag_arrays
from recsys.datasets.preparing.options import ItemOptions
from recsys.datasets.reading.item_features import ItemFeatures as FileFeatures
from recsys.datasets.reading.item_features import read_item_features
from recsys.datasets.reading.item_metadata import ItemFile, read_item_file
from recsys.datasets.schema import nearest
from recsys.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["NewItems", "UnknownTag", "read_new_items"]


@dataclass(frozen=True, slots=True)
class UnknownTag:
    """A tag that no trained item of the log bears, on a new item.

    Attributes:
        item: raw id.
        column: of the item file.
        name: of the tag.
        close: a known one that looks like it, or None.
    """

    item: Any
    column: str
    name: str
    close: str | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class NewItems:
    """Features of R new items under the numbers of a log's tags.

    Attributes:
        label: of the item file, for messages.
        ids: R raw ids of the log's kind, each once.
        table: what the file knows of them, R rows, ``title`` among its columns where it has titles.
        tags: (T,) int32 tags of all items, an item's in rising order.
        tag_offsets: (R + 1,) int64.
        tag_weights: (T,) float32.
        vectors: (R, p) float16, zeros for an item without one; None where the log's items have none.
        unknown_tags: tags that the log does not know, which were left out.
        unknown_words: how many words it does not know.
        unread: what the log's items have and these were not asked for, in words.
    """

    label: str
    ids: list[Any]
    table: "pl.DataFrame"
    tags: NDArray[np.int32]
    tag_offsets: NDArray[np.int64]
    tag_weights: NDArray[np.float32]
    vectors: NDArray[np.float16] | None
    unknown_tags: tuple[UnknownTag, ...]
    unknown_words: int
    unread: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def bare(self) -> Iterator[Any]:
        """Ids of items of which nothing is known."""
        for place, name in enumerate(self.ids):
            tagged = self.tag_offsets[place + 1] > self.tag_offsets[place]
            if not tagged and (self.vectors is None or not self.vectors[place].any()):
                yield name


def read_new_items(
    source: Any,
    store: SequenceStore,
    *,
    item_tags: Any = None,
    item_words: Any = None,
    item_vectors: Any = None,
) -> NewItems:
    """Read items that a log does not know, and what its items were prepared with of them.

    Args:
        source: an item file, or a frame; as `recsys.prepare` takes ``items``.
        store: the log, prepared with features of items.
        item_tags: columns of tags, of those that the log was prepared with.
        item_words: columns of words, of those as well.
        item_vectors: vectors as `recsys.prepare` takes them. With none of the three, all that the log was
            prepared with is read, from columns of the same names.

    Raises:
        ArgumentError: a column is none that the log was prepared with, or vectors are not to be had.
        DataError: the file cannot be read, a column is missing or holds something else, an id is missing,
            doubled or not of the log's kind, or vectors have another width.
    """
    known = store.item_features
    if known is None:
        raise DataError(f"{store.path}: was prepared without features of items; prepare it with item_tags=")
    record = store.meta["options"]
    asked = ItemOptions(item_tags=item_tags, item_words=item_words, item_vectors=item_vectors)
    items = read_item_file(source)
    own = {"item_tags": tuple(record["item_tags"]), "item_words": tuple(record["item_words"])}
    tags, words, vectors = asked.tags, asked.words, item_vectors
    if not asked.asked:
        tags, words = own["item_tags"], own["item_words"]
        vectors = _usual_vectors(items, record, known)
    _refuse_other_columns(own, {"item_tags": tags, "item_words": words})
    if vectors is not None and known.vectors is None:
        raise ArgumentError("the items of this run have no vectors: leave item_vectors= out")
    features = read_item_features(items, tags=tags, words=words, vectors=vectors)
    if features.vectors is not None and features.vectors.shape[1] != known.vector_width:
        raise DataError(
            f"{features.label}: vectors have {features.vectors.shape[1]} numbers, those of the run's items "
            f"{known.vector_width}; make them with the same model"
        )
    arrays, unknown, words_lost = _known_tags(features, store)
    made = None
    if known.vectors is not None:
        made = np.zeros((features.ids.len(), known.vector_width), dtype=np.float16)
        if features.vectors is not None:
            made[features.known] = features.vectors[features.known]
    unread = [f"column {name!r}" for kind in own.values() for name in kind if name not in (*tags, *words)]
    if known.vectors is not None and vectors is None:
        unread.append("vectors")
    return NewItems(
        label=features.label,
        ids=fitting_ids(features.ids, item_vocabulary(store).ids, features.label).to_list(),
        table=items.frame,
        tags=arrays["item_tags"],
        tag_offsets=arrays["item_tag_offsets"],
        tag_weights=arrays["item_tag_weights"],
        vectors=made,
        unknown_tags=unknown,
        unknown_words=words_lost,
        unread=tuple(unread),
    )


def _usual_vectors(items: ItemFile, record: dict[str, Any], known: ItemFeatures) -> Any:
    """The column that the log's vectors came from, if they came from one."""
    name = record.get("item_vectors")
    if known.vectors is None:
        return None
    if isinstance(name, str) and (name in items.names or name in items.frame.columns):
        return name
    raise ArgumentError(
        f"{items.label}: the run's items have vectors of {known.vector_width} numbers: name those of these "
        "items with item_vectors="
    )


def _refuse_other_columns(own: dict[str, tuple[str, ...]], asked: dict[str, tuple[str, ...]]) -> None:
    for kind, names in asked.items():
        for name in names:
            if name in own[kind]:
                continue
            other = next((k for k in own if name in own[k]), None)
            if other is not None:
                raise ArgumentError(f"column {name!r} was prepared otherwise: name it with {other}={name}")
            had = ", ".join(own[kind]) or "none"
            raise ArgumentError(f"{kind}={name}: the run was prepared with {had}, and not with it")


def _known_tags(
    features: FileFeatures, store: SequenceStore
) -> tuple[dict[str, NDArray[Any]], tuple[UnknownTag, ...], int]:
    """Arrays of the tags that the log knows, the tags that it does not, and how many words."""
    import polars as pl

    table = pl.DataFrame(schema={"column": pl.String, "name": pl.String, "tag": pl.Int32})
    if (store.path / TAGS).is_file():
        named = pl.read_parquet(store.path / TAGS, columns=["column", "name"], glob=False)
        table = named.with_columns(tag=pl.Series(range(named.height), dtype=pl.Int32))
    borne = features.tags.join(table, on=["column", "name"], how="left", maintain_order="left")
    entries = borne.drop_nulls("tag").select(pl.col("row").alias("item"), "tag", "column")
    lost = borne.filter(pl.col("tag").is_null())
    unknown: list[UnknownTag] = []
    for row, column, name in lost.filter(~pl.col("word")).select("row", "column", "name").iter_rows():
        names = table.filter(pl.col("column") == column)["name"].to_list() if not unknown else []
        unknown.append(UnknownTag(features.ids[row], column, name, nearest(name, names)))
    words = lost.filter(pl.col("word"))["name"].n_unique()
    return tag_arrays(entries, features.ids.len()), tuple(unknown), words
