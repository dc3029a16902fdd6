"""What is looked up of a log and its catalog: histories, titles, users and items by how their names begin."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from recsys.answering.changing_items import already_there
from recsys.answering.user_events import log_events
from recsys.errors import UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Item, ItemInfo
from recsys.serving.engine.served import Served

if TYPE_CHECKING:
    import polars as pl


def logged_history(served: Served, user: RawId) -> list[tuple[RawId, int | None]]:
    """What the log holds of a user, oldest first: raw item ids and unix seconds where it has them.

    Raises:
        UnknownIdError: the log has no such user.
    """
    (row,) = served.names.users.encode([user]).tolist()
    if row < 0:
        raise UnknownIdError(f"user {user!r} is not in the log: check the id")
    events = log_events(served.model.store_, int(row))
    ids = served.names.items.decode(events.items).to_list()
    times = [None] * len(ids) if events.times is None else events.times.tolist()
    return list(zip(ids, times, strict=True))


def titles(served: Served, items: Sequence[RawId]) -> list[str | None]:
    """Titles of items, None for one without, or one that is not in the catalog."""
    rows = served.names.answerable.encode(items)
    found: list[str | None] = [None] * len(rows)
    known = np.flatnonzero(rows >= 0)
    named = served.names.titles_of(rows[known])
    if named is not None:
        for place, title in zip(known.tolist(), named.to_list(), strict=True):
            found[place] = title
    return found


def users_like(served: Served, text: str, limit: int) -> list[RawId]:
    """Users whose id begins with a text, in the log's order."""
    ids = served.names.users.ids
    return ids.filter(_as_text(ids).str.starts_with(text)).head(limit).to_list()


def items_like(served: Served, text: str, limit: int) -> list[Item]:
    """Items of the log whose id begins with a text or whose title holds it, those with most events first."""
    names = served.names
    found = _as_text(names.items.ids).str.starts_with(text)
    if names.titles is not None and text:
        holds = names.titles.str.to_lowercase().str.contains(text.lower(), literal=True)
        found = found | holds.fill_null(value=False)
    rows = found.arg_true().to_numpy().astype(np.int64)
    counts = served.model.store_.item_counts()[rows]
    order = np.argsort(-counts, kind="stable")[:limit]
    rows, counts = rows[order], counts[order]
    ids = names.items.decode(rows).to_list()
    shown = titles(served, ids)
    return [
        Item(raw, float(count), rank, title)
        for rank, (raw, count, title) in enumerate(zip(ids, counts.tolist(), shown, strict=True), 1)
    ]


def item_info(served: Served, item: RawId) -> ItemInfo:
    """What the catalog says of an item.

    Raises:
        UnknownIdError: it is in neither the log nor the items added.
    """
    (row,) = served.names.answerable.encode([item]).tolist()
    if row < 0:
        raise UnknownIdError(f"item {item!r} is not in the catalog: check the id")
    counts = served.model.store_.item_counts()
    return ItemInfo(
        item,
        titles(served, [item])[0],
        tuple(name for name in served.categories if row in served.names.of_category(name)),
        int(counts[row]) if row < len(counts) else 0,
        bool(already_there(served.model.decoder_, served.names, [item])),
    )


def nearest(
    served: Served, items: Sequence[RawId], among: Sequence[RawId]
) -> list[tuple[RawId, float] | None]:
    """For each item which of others is nearest, and the cosine between their embeddings.

    Returns:
        None where the item is one that the model does not read, or all of the others are.
    """
    rows, others = (served.names.readable.encode(list(ids)) for ids in (items, among))
    there = np.flatnonzero(others >= 0)
    found: list[tuple[RawId, float] | None] = [None] * len(rows)
    known = np.flatnonzero(rows >= 0)
    if not len(there) or not len(known):
        return found
    cosines: Any = _unit(served, rows[known]) @ _unit(served, others[there]).T
    best = cosines.argmax(axis=1)
    for place, own, cosine in zip(known.tolist(), best.tolist(), cosines.max(axis=1).tolist(), strict=True):
        found[place] = among[there[own]], cosine
    return found


def _unit(served: Served, rows: npt.NDArray[Any]) -> Any:
    """(n, d) float32 embeddings of items that the model reads, of length 1; one of zeros stays that."""
    vectors = served.item_vectors[rows]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


def _as_text(ids: "pl.Series") -> "pl.Series":
    import polars as pl

    return ids.cast(pl.String)
