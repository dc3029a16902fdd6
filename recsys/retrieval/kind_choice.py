"""Which kind of index a catalog gets when none is named, and why, in words.

Thresholds are for float32 vectors of width 64 on one CPU thread, and move little with the width: the exact
scan and the graph both cost in proportion to it.
"""

FLAT_UP_TO = 100_000
"""A scan of 100,000 items is exact and takes about 2 ms, less than encoding the history."""

GRAPH_UP_TO = 1_000_000
"""Where vectors lie in clusters a graph answers ten times sooner than the scan of 100,000, at 0.96 of
the 10 best; it takes about 35 s per 100,000 items to build, and 256 bytes of links per item.
docs/retrieval.md says where it does not pay. An eighth of the lists holds 0.97 of the 10 best of a million
vectors of few directions; 4-bit codes propose less than half of those, 40 candidates an answer."""


def kind_for(n_items: int) -> tuple[str, str]:
    """The FAISS kind for a catalog on a CPU.

    Returns:
        The kind and the reason: flat up to 100,000 items, hnsw up to a million, ivf beyond.
    """
    if n_items <= FLAT_UP_TO:
        return "flat", f"{n_items:,} items: an exact scan takes milliseconds up to {FLAT_UP_TO:,}"
    if n_items <= GRAPH_UP_TO:
        return (
            "hnsw",
            f"{n_items:,} items: past {FLAT_UP_TO:,} a graph answers several times sooner than a scan where "
            "vectors lie in clusters (kind='flat' stays exact; measure yours)",
        )
    return (
        "ivf",
        f"{n_items:,} items: past {GRAPH_UP_TO:,} a graph takes too long to build; inverted lists keep a "
        "second copy of the vectors (kind='ivfpq' a sixteenth, and finds less; kind='flat' stays exact)",
    )
