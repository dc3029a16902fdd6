"""Items that come after training: vectors for them, names, categories, and their place in the index."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from recsys.answering.added_items import new_vectors
from recsys.answering.arguments import id_list
from recsys.answering.names import Names
from recsys.decoding.decoder import Decoder
from recsys.errors import ArgumentError


def add_items(
    decoder: Decoder,
    names: Names,
    ids: Iterable[Any],
    *,
    vectors: Any = None,
    like: Iterable[Iterable[Any]] | None = None,
    category: Iterable[str] | None = None,
    title: Iterable[str | None] | None = None,
) -> None:
    """Let items be answered from now on; the arguments are those of `Recommender.add_items`.

    Raises:
        ArgumentError: both vectors and like, none of the three, or one of them does not fit.
        UnknownIdError: a known item or category is not in the catalog.
    """
    if vectors is not None and like is not None:
        raise ArgumentError("pass vectors or like, not both")
    if vectors is None and like is None and category is None:
        raise ArgumentError("pass vectors=, like= or category=: one of them, for all items that are added")
    new = id_list(ids, "ids")
    kinds = None if category is None else id_list(category, "category")
    if kinds is not None and len(kinds) != len(new):
        raise ArgumentError(f"{len(new)} items are added and {len(kinds)} categories: give one each")
    titles = None if title is None else id_list(title, "title")
    if titles is not None and len(titles) != len(new):
        raise ArgumentError(f"{len(new)} items are added and {len(titles)} titles: give one each")
    if titles is not None and not all(own is None or isinstance(own, str) for own in titles):
        raise ArgumentError("title: each is text, or None for an item without")
    live = decoder.changing()
    # Names that are not known are refused before anything is changed.
    members = {name: names.of_category(name) for name in set(kinds or ())}
    rows: list[Any] | None = None
    if like is not None:
        rows = [names.answerable_rows(known, "like") for known in id_list(like, "like")]
    elif vectors is None and kinds is not None:
        here = live.snapshot().ids
        rows = [np.intersect1d(members[name], here) for name in kinds]
    given = new_vectors(live, len(new), vectors=vectors, like=rows)
    if given.shape != (len(new), decoder.index.width):
        raise ArgumentError(f"vectors has shape {given.shape}: give ({len(new)}, {decoder.index.width})")
    places = names.answerable.add(new)
    if titles is not None:
        names.answerable.entitle(places, titles)
    live.update(add=(places, given))
    if kinds is not None:
        names.answerable.categorize(places, [[name] for name in kinds])


def already_there(decoder: Decoder, names: Names, ids: list[Any]) -> list[Any]:
    """Those of some raw ids that may be answered now: adding them replaces their vectors."""
    rows = names.answerable.encode(ids)
    there = rows >= 0
    if decoder.live is not None:
        there &= np.isin(rows, decoder.live.snapshot().ids)
    return [name for name, known in zip(ids, there.tolist(), strict=True) if known]
