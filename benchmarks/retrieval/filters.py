"""What filters cost: excluding seen items, and a category of one item in a hundred.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.filters --items 100000

Seen: 50 items of each query's own, against the same search without a filter, and against FAISS's
IDSelectorBatch per query. Category: against FAISS's IDSelectorBitmap over the whole index, with our sub-index
kept and made anew. Sides take turns, timed in processor time; answers of all sides are compared first.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.retrieval.measuring import Floats, alternate, clustered, ratio, record, spread
from recsys.retrieval.faiss_library import bitmap_selector, load_faiss
from recsys.retrieval.item_index import ItemIndex

K = 20
SEEN = 50
LEAST_QUERIES = 32
"""Queries answered per timing, in calls of the batch's size: a served process stays in its caches."""


def seen_cost(vectors: Floats, queries: Floats, rounds: int) -> dict[str, Any]:
    """Excluding seen items against not excluding them, and against a selector per query."""
    faiss = load_faiss()
    index = ItemIndex.build(vectors, kind="flat", fingerprint="")
    plain = faiss.IndexFlatIP(vectors.shape[1])
    plain.add(vectors)
    # The seen items that hurt: those that the query would be answered with.
    seen = index.search(queries, SEEN).ids
    exclude = seen.ravel(), np.arange(len(queries) + 1) * SEEN

    def selectors() -> Any:
        found = []
        for row in range(len(queries)):
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(seen[row]))
            parameters = faiss.SearchParameters(sel=selector)
            found.append(plain.search(queries[row : row + 1], K, params=parameters)[1])
        return np.concatenate(found)

    ours = index.search(queries, K, exclude=exclude).ids
    agreement = float((ours == selectors()).mean())
    seconds = alternate(
        {
            "unfiltered": _often(lambda: index.search(queries, K), len(queries)),
            "seen": _often(lambda: index.search(queries, K, exclude=exclude), len(queries)),
            "selector": _often(selectors, len(queries)),
        },
        rounds,
    )
    return {
        "batch": len(queries),
        "agreement_with_selector": agreement,
        "ms": {name: spread(times) for name, times in seconds.items()},
        "seen_over_unfiltered": ratio(seconds, "seen", "unfiltered"),
        "selector_over_seen": ratio(seconds, "selector", "seen"),
    }


def category_cost(vectors: Floats, queries: Floats, rounds: int) -> dict[str, Any]:
    """A category of 1% of the items against a bitmap selector over all of them."""
    faiss = load_faiss()
    index = ItemIndex.build(vectors, kind="flat", fingerprint="")
    plain = faiss.IndexFlatIP(vectors.shape[1])
    plain.add(vectors)
    allowed = np.sort(np.random.default_rng(1).choice(len(vectors), len(vectors) // 100, replace=False))
    selector = bitmap_selector(faiss, allowed, len(vectors))
    parameters = faiss.SearchParameters(sel=selector)
    backend: Any = index.backend

    def anew() -> Any:
        backend._gathered._kept.clear()
        backend._gathered._bytes = 0
        return index.search(queries, K, allow=allowed)

    ours = index.search(queries, K, allow=allowed).ids
    theirs = plain.search(queries, K, params=parameters)[1]
    seconds = alternate(
        {
            "kept": _often(lambda: index.search(queries, K, allow=allowed), len(queries)),
            "anew": _often(anew, len(queries)),
            "bitmap": _often(lambda: plain.search(queries, K, params=parameters), len(queries)),
        },
        rounds,
    )
    return {
        "batch": len(queries),
        "allowed": len(allowed),
        "agreement_with_bitmap": float((ours == theirs).mean()),
        "ms": {name: spread(times) for name, times in seconds.items()},
        "bitmap_over_kept": ratio(seconds, "bitmap", "kept"),
        "bitmap_over_anew": ratio(seconds, "bitmap", "anew"),
    }


def _often(call: Any, batch: int) -> Any:
    def repeat() -> None:
        for _ in range(max(1, LEAST_QUERIES // batch)):
            call()

    return repeat


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="100000", help="catalog sizes, with commas")
    parser.add_argument("--batches", default="1,32,128")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = []
    for size in (int(text) for text in options.items.split(",")):
        for batch in (int(text) for text in options.batches.split(",")):
            vectors, queries = clustered(size, 64, batch)
            seen = seen_cost(vectors, queries, options.rounds)
            category = category_cost(vectors, queries, options.rounds)
            results.append({"items": size, "batch": batch, "seen": seen, "category": category})
            print(
                f"{size:,} items, batch {batch}: seen {seen['seen_over_unfiltered']['median']:.2f} times the "
                f"unfiltered cost, selectors {seen['selector_over_seen']['median']:.1f} times that; "
                f"1% category {category['bitmap_over_kept']['median']:.1f} times faster than the bitmap, "
                f"{category['bitmap_over_anew']['median']:.1f} without a kept sub-index",
                flush=True,
            )
    body = {
        "d": 64,
        "queries_per_timing": f"the batch, at least {LEAST_QUERIES}",
        "k": K,
        "seen_items": SEEN,
        "results": results,
    }
    record("retrieval-filters", "python -m recsys.benchmarks.retrieval.filters", body, options.out)


if __name__ == "__main__":
    main()
