"""The kinds of item index against each other, in one batch and one by one: ``recsys bench retrieval``."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.retrieval.measuring import Floats, clustered, recall
from recsys.benchmarks.timing import alternate, summarize
from recsys.errors import RecsysError
from recsys.retrieval.item_index import ItemIndex

__all__ = ["KINDS", "run"]

KINDS = ("exact", "flat", "hnsw", "ivf")
WIDTH, QUERIES, DEPTH = 64, 64, 100


def run(*, sizes: Sequence[int], seconds: float, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Build each kind over the same vectors and search them in turn on the CPU.

    Args:
        sizes: items of each catalog.
        seconds: about how long each comparison may take.
        kinds: of index; the first is what the others are compared with.
    """
    result: dict[str, Any] = {"benchmark": "retrieval", **stamp(), "device": "cpu", "searches": []}
    for size in sizes:
        vectors, queries = clustered(size, WIDTH, QUERIES)
        built, failures, build_seconds = {}, {}, {}
        for kind in kinds:
            began = time.perf_counter()
            try:
                built[kind] = ItemIndex.build(vectors, kind=kind, fingerprint="")
            except RecsysError as error:
                failures[kind] = str(error)
            build_seconds[kind] = time.perf_counter() - began
        for form, search in (("one batch", _batch), ("one by one", _one_by_one)):
            entry = _compare(built, queries, search, seconds)
            facts = {"items": size, "queries": QUERIES, "k": DEPTH, "form": form}
            result["searches"].append({**facts, **entry, "failures": failures, "build_s": build_seconds})
    return result


def _compare(
    built: dict[str, ItemIndex],
    queries: Floats,
    search: Callable[[ItemIndex, Floats], NDArray[np.int64]],
    seconds: float,
) -> dict[str, Any]:
    import torch

    found = {kind: search(index, queries) for kind, index in built.items()}
    sides = {kind: _side(index, queries, search) for kind, index in built.items()}
    first = next(iter(sides))
    times = alternate(sides, device=torch.device("cpu"), seconds=seconds)
    return {
        "first": first,
        **summarize(times),
        "recall": {kind: recall(ids, found[first]) for kind, ids in found.items()},
    }


def _side(
    index: ItemIndex, queries: Floats, search: Callable[[ItemIndex, Floats], NDArray[np.int64]]
) -> Callable[[], object]:
    return lambda: search(index, queries)


def _batch(index: ItemIndex, queries: Floats) -> NDArray[np.int64]:
    return index.search(queries, DEPTH).ids


def _one_by_one(index: ItemIndex, queries: Floats) -> NDArray[np.int64]:
    return np.concatenate([index.search(queries[i : i + 1], DEPTH).ids for i in range(len(queries))])
