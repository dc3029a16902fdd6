"""The catalog of a prepared dataset: a row for each item, with all that is known of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.preparing.item_features import CatalogFeatures, catalog_features
from recsys.datasets.reading.item_features import ItemFeatures
from recsys.datasets.reading.item_metadata import item_rows, unmatched

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Catalog", "build_catalog"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Catalog:
    """V items.

    Attributes:
        table: frame ``item_id``, ``count`` and metadata columns.
        features: of the items, or None where none were asked for.
        facts: for meta.json.
    """

    table: "pl.DataFrame"
    features: CatalogFeatures | None
    facts: dict[str, Any]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of the features, by name."""
        return {} if self.features is None else self.features.arrays

    @property
    def tags(self) -> "pl.DataFrame | None":
        """Names of the tags, if items bear any."""
        return None if self.features is None else self.features.tags


def build_catalog(
    ids: "pl.Series",
    counts: NDArray[np.int64],
    *,
    metadata: "pl.DataFrame | None",
    features: ItemFeatures | None,
    label: str,
    keep_cold: bool,
    notify: Callable[[str], None] | None,
) -> Catalog:
    """Put all that is known of items into their rows.

    Args:
        ids: (V,) item ids in rising order.
        counts: (V,) training events.
        metadata: rows of the item file, or None without one.
        features: of the item file, or None where none were asked for.
        label: of the item file, for messages.
        keep_cold: whether items without a training event were kept on purpose, and are counted.
        notify: told of items that the item file does not know.

    Raises:
        DataError: the item file fits none of the items.
    """
    described = catalog_features(features, ids, counts, notify) if features is not None else None
    table, titled = item_rows(ids, counts, metadata)
    if metadata is not None and notify is not None:
        told = unmatched(ids, metadata, titled, label)
        if told is not None:
            notify(told)
    facts = {
        "items_with_metadata": titled,
        **({"untrained_items": int(np.count_nonzero(counts == 0))} if keep_cold else {}),
        **(described.facts if described is not None else {}),
    }
    return Catalog(table=table, features=described, facts=facts)
