"""Recall against latency of every kind of index, one query at a time, as a served request comes.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.recall_latency --items 10000,100000,1000000

Inner product, d = 64, clustered vectors of differing lengths. Each kind is built once and searched under a
range of its recall knob; flat is timed in turn with every setting, so that ratios survive a busy machine.
Writes a JSON record and a picture of the curves.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.measuring import (
    RESULTS,
    Floats,
    alternate,
    clustered,
    ratio,
    recall,
    record,
    spread,
)
from recsys.retrieval.item_index import ItemIndex

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "hnsw": [{"ef_search": ef} for ef in (16, 32, 64, 128, 256, 512)],
    "ivf": [{"nprobe": n} for n in (4, 16, 64, 128, 256)],
    "ivfpq": [{"nprobe": n, "refine": r} for n, r in ((16, 4), (64, 4), (64, 10), (128, 10), (256, 10))],
}
DEPTHS = (10, 100)


def curve(vectors: Floats, queries: Floats, kind: str, rounds: int) -> dict[str, Any]:
    """Build a kind and search it under each setting."""
    flat = ItemIndex.build(vectors, kind="flat", fingerprint="")
    best = {k: flat.search(queries, k).ids for k in DEPTHS}
    points = []
    parts, built_in = None, 0.0
    for setting in SETTINGS[kind]:
        began = time.perf_counter()
        index = _build(vectors, kind, setting, parts)
        if parts is None:
            built_in = time.perf_counter() - began
            parts = index.backend.parts()
        point: dict[str, Any] = {"setting": setting}
        for k in DEPTHS:
            found = index.search(queries, k).ids
            seconds = alternate(
                {"flat": _one_by_one(flat, queries, k), kind: _one_by_one(index, queries, k)}, rounds
            )
            each = {name: [s / len(queries) for s in times] for name, times in seconds.items()}
            point[f"k{k}"] = {
                "recall": recall(found, best[k]),
                **spread(each[kind]),
                "flat_p50_ms": spread(each["flat"])["p50_ms"],
                "times_faster": ratio(seconds, "flat", kind),
            }
        points.append(point)
        shown = point["k100"]
        print(
            f"{len(vectors):>9,} {kind:6} {setting}  recall@100 {shown['recall']:.3f}  "
            f"{shown['p50_ms']:.3f} ms  {shown['times_faster']['median']:.1f} times faster than flat",
            flush=True,
        )
    return {"items": len(vectors), "kind": kind, "build_seconds": built_in, "points": points}


def _build(vectors: Floats, kind: str, setting: dict[str, Any], parts: Any) -> ItemIndex:
    """An index with a setting of its knob; built once, then taken from its parts."""
    import torch

    from recsys.retrieval.backends import build_backend
    from recsys.retrieval.item_index import check_options

    if parts is None:
        return ItemIndex.build(vectors, kind=kind, fingerprint="", options=setting)
    options = check_options(setting)
    backend = build_backend(kind, torch.from_numpy(vectors), "inner_product", options, parts)
    return ItemIndex(
        backend,
        kind=kind,
        asked_kind=kind,
        reason="",
        metric="inner_product",
        fingerprint="",
        options=options,
    )


def _one_by_one(index: ItemIndex, queries: Floats, k: int) -> Any:
    def search() -> None:
        for row in range(len(queries)):
            index.search(queries[row : row + 1], k)

    return search


def draw(curves: list[dict[str, Any]], path: Path) -> None:
    """Recall over milliseconds, a panel per catalog size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = sorted({c["items"] for c in curves})
    figure, axes = pyplot.subplots(1, len(sizes), figsize=(5 * len(sizes), 4), squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        flats = []
        for c in (c for c in curves if c["items"] == size):
            points = [p["k100"] for p in c["points"]]
            axis.plot([p["p50_ms"] for p in points], [p["recall"] for p in points], "o-", label=c["kind"])
            flats += [p["flat_p50_ms"] for p in points]
        axis.axvline(float(np.median(flats)), color="black", linestyle=":", label="flat (exact)")
        axis.set(
            xscale="log", xlabel="ms per query (median)", ylabel="recall@100", title=f"{size:,} items, d = 64"
        )
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run, print, write record and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="10000,100000", help="catalog sizes, with commas")
    parser.add_argument("--kinds", default="hnsw,ivf,ivfpq")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="record; the picture lies beside it")
    options = parser.parse_args()
    curves = []
    for size in (int(text) for text in options.items.split(",")):
        vectors, queries = clustered(size, 64, options.queries)
        curves += [curve(vectors, queries, kind, options.rounds) for kind in options.kinds.split(",")]
    body = {"d": 64, "queries": options.queries, "rounds": options.rounds, "curves": curves}
    path = record(
        "retrieval-recall-latency", "python -m benchmarks.retrieval.recall_latency", body, options.out
    )
    draw(curves, path.with_suffix(".png"))
    print(
        f"Written: {path}, {path.with_suffix('.png')}" if path.parent != RESULTS else f"Written: {path.name}"
    )


if __name__ == "__main__":
    main()
