"""Features of an item file in the order of a catalog, as arrays of a prepared dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.reading.item_features import ItemFeatures
from recsys.datasets.reading.item_metadata import as_ids
from recsys.errors import DataError

if TYPE_CHECKING:
    import polars as pl

__all__ = ["CatalogFeatures", "catalog_features", "fitting_ids", "tag_arrays"]

LEAST_WORD = 3
"""Trained items that must have a word to make a tag of it: one on two items says little of others."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CatalogFeatures:
    """Features of V items.

    Attributes:
        arrays: by name, as `recsys.datasets.prepared.store.SequenceStore` describes them.
        tags: frame ``column``, ``name``, ``count`` (items that bear it), in the order of the tags' numbers;
            None where none were asked for.
        facts: for meta.json.
    """

    arrays: dict[str, NDArray[Any]]
    tags: "pl.DataFrame | None"
    facts: dict[str, Any]


def fitting_ids(features_ids: "pl.Series", ids: "pl.Series", label: str) -> "pl.Series":
    """Ids of an item file as the catalog's type has them, each once.

    Args:
        features_ids: of the file.
        ids: of the log.
        label: of the file, for messages.

    Raises:
        DataError: an id cannot be one of such a log, or two are the same one there.
    """
    fitting = as_ids(features_ids, ids)
    if fitting.null_count():
        odd = features_ids.filter(fitting.is_null())[0]
        raise DataError(f"{label}: item {odd!r} is no whole number, as the log's items are; leave it out")
    twice = fitting.is_duplicated()
    if twice.any():
        first, second = twice.arg_true()[:2].to_list()
        raise DataError(
            f"{label}: items {features_ids[first]!r} and {features_ids[second]!r} are one item of the log;"
            " keep one of them"
        )
    return fitting


def catalog_features(
    features: ItemFeatures,
    ids: "pl.Series",
    counts: NDArray[np.int64],
    notify: Callable[[str], None] | None = None,
) -> CatalogFeatures:
    """Put the features of an item file into the rows of a catalog.

    A tag that no trained item bears is left out: nothing would ever be learned of it. A tag weighs
    1/sqrt(n) where an item bears n tags of its column, so that columns and items with many weigh no more.

    Args:
        features: of the file.
        ids: (V,) item ids of the catalog.
        counts: (V,) training events.
        notify: told of items without features.

    Raises:
        DataError: the file knows none of the items, or no tag of a column is borne by a trained item.
    """
    places = _places(features, ids)
    known = places >= 0
    if not known.any():
        raise DataError(
            f"{features.label}: knows none of the {ids.len():,} items; its ids are like {features.ids[0]!r},"
            f" those of the log like {ids[0]!r}"
        )
    arrays: dict[str, NDArray[Any]] = {}
    facts: dict[str, Any] = {}
    table = None
    featured = np.zeros(ids.len(), dtype=bool)
    if features.columns:
        table, tags = _tag_arrays(features, places, counts)
        arrays |= tags
        bears = np.diff(tags["item_tag_offsets"]) > 0
        featured |= bears
        facts |= {"tags": table.height, "items_with_tags": int(bears.sum())}
    if features.vectors is not None:
        vectors = np.zeros((ids.len(), features.vectors.shape[1]), dtype=np.float16)
        vectors[places[known]] = features.vectors[known]
        has = np.zeros(ids.len(), dtype=bool)
        has[places[known & features.known]] = True
        featured |= has
        arrays["item_vectors"] = vectors
        facts |= {"vector_width": vectors.shape[1], "items_with_vectors": int(has.sum())}
    lacking = np.flatnonzero(~featured)
    if len(lacking) and notify is not None:
        notify(
            f"{features.label}: has no features of {len(lacking):,} of {ids.len():,} items, such as"
            f" {ids[int(lacking[0])]!r}; they have their ids alone"
        )
    return CatalogFeatures(arrays=arrays, tags=table, facts=facts)


def _places(features: ItemFeatures, ids: "pl.Series") -> NDArray[np.int64]:
    """(R,) the item of each row of the file, -1 for one that the catalog lacks."""
    import polars as pl

    fitting = as_ids(features.ids, ids)
    table = pl.DataFrame({"id": ids, "place": pl.Series(range(ids.len()), dtype=pl.Int64)})
    found = fitting.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["place"]
    doubled = found.is_not_null() & found.is_duplicated()
    if doubled.any():
        fitting_ids(features.ids.filter(doubled), ids, features.label)
    return found.fill_null(-1).to_numpy()


def _tag_arrays(
    features: ItemFeatures, places: NDArray[np.int64], counts: NDArray[np.int64]
) -> "tuple[pl.DataFrame, dict[str, NDArray[Any]]]":
    """The table of tags, and which items bear which."""
    import polars as pl

    where = pl.Series("item", places[features.tags["row"].to_numpy()])
    borne = features.tags.select("column", "name", "word").with_columns(where).filter(pl.col("item") >= 0)
    trained = pl.Series("trained", counts[borne["item"].to_numpy()] > 0)
    counted = (
        borne.with_columns(trained)
        .group_by("column", "name")
        .agg(pl.len().alias("count"), pl.col("trained").sum(), pl.col("word").first())
    )
    least = pl.when(pl.col("word")).then(LEAST_WORD).otherwise(1)
    kept = counted.filter(pl.col("trained") >= least)
    order = pl.Series("column", features.columns)
    for name in features.columns:
        if not (kept["column"] == name).any():
            word = bool((counted.filter(pl.col("column") == name)["word"]).any())
            what = (
                f"word that {LEAST_WORD} trained items have" if word else "tag of a trained item of the log"
            )
            raise DataError(f"{features.label}: column {name!r} holds no {what}; leave the column out")
    rank = pl.DataFrame({"column": order, "__order": range(order.len())})
    kept = kept.join(rank, on="column").sort("__order", "name")
    numbered = kept.select("column", "name", pl.Series("tag", range(kept.height), dtype=pl.Int32))
    entries = borne.join(numbered, on=["column", "name"]).select("item", "tag", "column")
    table = kept.select("column", "name", pl.col("count").cast(pl.Int64))
    return table, tag_arrays(entries, len(counts))


def tag_arrays(entries: "pl.DataFrame", n_items: int) -> dict[str, NDArray[Any]]:
    """Which items bear which tags, and what each weighs, as arrays of a prepared dataset.

    Args:
        entries: frame ``item`` int64, ``tag`` int32, ``column``: each tag of each item once.
        n_items: V.
    """
    import polars as pl

    entries = entries.sort("item", "tag")
    share = (1 / pl.len().cast(pl.Float64).sqrt()).over("item", "column").cast(pl.Float32)
    ends = np.cumsum(np.bincount(entries["item"].to_numpy(), minlength=n_items))
    return {
        "item_tags": entries["tag"].to_numpy(),
        "item_tag_offsets": np.concatenate(([0], ends)).astype(np.int64),
        "item_tag_weights": entries.select(share.alias("weight"))["weight"].to_numpy(),
    }
