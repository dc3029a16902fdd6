"""How a filtered search is carried out: the cheapest way that cannot break a filter, for each query.

- gather: copy the few allowed vectors together and scan them exactly.
- fetch: ask for as many more as the filter can take away, and drop those.
- selector: hand the library the allowed set.
- scan: the exact scan of all allowed items.

A selector is the last resort on a flat index (it keeps FAISS from using BLAS: 6 times the cost per query) and
unsafe on a graph: with 2% of the items allowed, HNSW filled 6.75 of 10 places at 0.06 recall, so a graph is
given one only where most items are allowed.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from recsys.retrieval.filters import Filters, Ints

How = Literal["gather", "fetch", "selector", "scan"]

GATHER_ITEMS = 20_000
"""So few allowed items are scanned at once, whatever their share: under half a millisecond."""
GATHER_SHARE = 0.02
"""... and so small a share always: the copy and the scan cost a fiftieth of the whole scan."""
FETCH_DEPTH = 1024
"""So many items that a filter takes away are over-fetched; selecting more costs more than another way."""
BATCH_FOR_BLAS = 8
"""Queries from which one gathered copy, scanned with BLAS, is cheaper than a selector in every query."""
GRAPH_SHARE = 0.3
"""Least share of allowed items at which a graph still finds its way among them."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What an index can do.

    Attributes:
        exact: it scans, so that over-fetching loses nothing.
        selectors: it honours a set of allowed items. Classic GPU indexes drop it silently: False.
        selector_share: least allowed share at which it may be trusted with one.
        deepest: most items it returns for a query.
        longest_list: most items that it is told to allow, or to leave out, whichever are fewer; None for any.
    """

    exact: bool
    selectors: bool
    selector_share: float
    deepest: int
    longest_list: int | None = None


class Step(NamedTuple):
    """Some queries answered in one way.

    Attributes:
        how: the way.
        rows: (r,) int64 queries.
        excluded: most items that a filter takes away from one of them, among those that the way looks at.
    """

    how: How
    rows: Ints
    excluded: int


def plan(filters: Filters, k: int, engine: Engine) -> list[Step]:
    """Choose a way for each query.

    Args:
        filters: merged filters of b queries; not empty of candidates.
        k: answers per query.
        engine: what the index can do.

    Returns:
        Steps whose rows make up all b queries. Queries are grouped by the power of two of their exclusions,
        so that one user with thousands of seen items does not make everybody's fetch as deep.
    """
    if not filters.excludes:
        return [_step(filters, np.arange(filters.n_rows, dtype=np.int64), 0, k, engine)]
    counts = np.diff(filters.offsets)
    level = np.ceil(np.log2(counts + 1)).astype(np.int64)
    steps = []
    for value in np.unique(level):
        rows = np.flatnonzero(level == value)
        excluded = int(counts[rows].max())
        steps.append(_step(filters, rows, excluded, k, engine))
    return steps


def _step(filters: Filters, rows: Ints, excluded: int, k: int, engine: Engine) -> Step:
    allowed = filters.candidates
    shallow = excluded <= FETCH_DEPTH and k + excluded <= _worthwhile(filters, engine)
    if allowed is None:
        if engine.exact or shallow:
            return Step("fetch", rows, excluded)
        return Step("scan", rows, excluded)
    share = len(allowed) / filters.n_items
    if len(allowed) <= GATHER_ITEMS or share <= GATHER_SHARE:
        return Step("gather", rows, excluded)
    denied = filters.n_items - len(allowed)
    if denied + excluded <= FETCH_DEPTH and k + denied + excluded <= _worthwhile(filters, engine):
        return Step("fetch", rows, denied + excluded)
    short = engine.longest_list is None or min(len(allowed), denied) <= engine.longest_list
    trusted = engine.selectors and share >= engine.selector_share and short
    if trusted and (len(rows) < BATCH_FOR_BLAS if engine.exact else shallow):
        return Step("selector", rows, excluded)
    return Step("gather" if engine.exact else "scan", rows, excluded)


def _worthwhile(filters: Filters, engine: Engine) -> int:
    """Most items worth fetching: past a tenth of the catalog an approximate search costs what a scan does."""
    return min(engine.deepest, filters.n_items if engine.exact else max(1, filters.n_items // 10))
