"""Recall against latency of every kind of index, one query at a time, as a served request comes.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.recall_latency --items 10000,100000,1000000

Inner product, d = 64, on vectors in clusters, vectors of few effective directions, and vectors without
structure (`measuring.py`). Each kind is built once and searched under a range of its recall knob. The base of
every ratio is FAISS's own IndexFlatIP, called directly and timed in turn with every setting, so that ratios
survive a busy machine and our checks of filters and scores count against us. Milliseconds are of processor
time: the latency of an idle machine.

A curve is written when it is done and found again by the next call (--again measures it anew), so that the
long ones may run one at a time. Beside the JSON record lies a picture of the curves.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import commit, stamp
from recsys.benchmarks.retrieval.measuring import (
    VECTORS,
    Floats,
    alternate,
    ratio,
    recall,
    record,
    spread,
)
from recsys.benchmarks.retrieval.pictures import draw_recall
from recsys.retrieval.backends import build_backend
from recsys.retrieval.checks import check_options
from recsys.retrieval.faiss_library import load_faiss, searching
from recsys.retrieval.item_index import ItemIndex

WIDTH = 64
DEPTHS = (10, 100)
Settings = list[dict[str, Any]]

# Name -> kind, how it is built, how it is searched.
CURVES: dict[str, tuple[str, dict[str, Any], Settings]] = {
    "hnsw": ("hnsw", {}, [{"ef_search": ef} for ef in (10, 16, 32, 64, 128, 256, 512)]),
    "hnsw-16": (
        "hnsw",
        {"hnsw_m": 16, "ef_construction": 100},
        [{"ef_search": ef} for ef in (10, 16, 32, 64, 128, 256, 512)],
    ),
    "ivf": ("ivf", {}, [{"nprobe": n} for n in (4, 8, 16, 32, 64, 128, 256, 512, 1024)]),
    "ivfpq": (
        "ivfpq",
        {},
        [
            {"nprobe": n, "refine": r}
            for n, r in ((8, 4), (16, 4), (32, 4), (64, 4), (64, 10), (128, 10), (128, 40), (512, 40))
        ],
    ),
}


def curve(
    vectors: Floats, queries: Floats, name: str, rounds: int, centres: dict[str, Any]
) -> dict[str, Any]:
    """Build an index and search it under each setting.

    Args:
        vectors: (V, d).
        queries: (b, d).
        name: of `CURVES`.
        rounds: of timing.
        centres: those of an earlier kind's lists over the same vectors, which a later one takes; filled here.
    """
    kind, building, settings = CURVES[name]
    faiss = load_faiss()
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    best = flat.search(queries, max(DEPTHS))[1]
    known = dict(centres) if kind == "ivfpq" else None
    began = time.process_time()
    parts = _reopened(vectors, kind, building, known or None).backend.parts()
    seconds_to_build = time.process_time() - began
    if kind == "ivf":
        centres.update(parts)
    points = []
    for setting in settings:
        index = _reopened(vectors, kind, building | setting, parts)
        point: dict[str, Any] = {"setting": setting}
        for k in DEPTHS:
            found = index.search(queries, k).ids
            sides = {"flat": _plain_one_by_one(faiss, flat, queries, k), name: _one_by_one(index, queries, k)}
            seconds = alternate(sides, rounds)
            each = {side: [s / len(queries) for s in times] for side, times in seconds.items()}
            point[f"k{k}"] = {
                "recall": recall(found, best[:, :k]),
                **spread(each[name]),
                "flat_p50_ms": spread(each["flat"])["p50_ms"],
                "times_faster": ratio(seconds, "flat", name),
            }
        points.append(point)
        shown = [
            f"@{k} {point[f'k{k}']['recall']:.3f} {point[f'k{k}']['p50_ms']:.3f} ms "
            f"{point[f'k{k}']['times_faster']['median']:.1f}x"
            for k in DEPTHS
        ]
        print(f"{len(vectors):>9,} {name:8} {setting}  {'   '.join(shown)}", flush=True)
    return {
        "items": len(vectors),
        "kind": kind,
        "name": name,
        "options": building,
        "build_seconds": seconds_to_build,
        "centres": "of ivf" if known else "own",
        "queries": len(queries),
        "rounds": rounds,
        "commit": commit(),
        "cpu": stamp()["machine"]["cpu"],
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "points": points,
    }


def _reopened(vectors: Floats, kind: str, setting: dict[str, Any], parts: Any) -> ItemIndex:
    """An index, built or taken from its parts, under a setting of its knob."""
    options = check_options(setting)
    return ItemIndex(
        build_backend(kind, torch.from_numpy(vectors), "inner_product", options, parts),
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


def _plain_one_by_one(faiss: Any, index: Any, queries: Floats, k: int) -> Any:
    def search() -> None:
        with searching(faiss, 0):
            for row in range(len(queries)):
                index.search(queries[row : row + 1], k)

    return search


def fastest(curves: list[dict[str, Any]], least: float = 0.95) -> list[dict[str, Any]]:
    """For each catalog, index and depth the fastest setting whose recall is high enough."""
    rows = []
    for c in curves:
        for k in DEPTHS:
            good = [p for p in c["points"] if p[f"k{k}"]["recall"] >= least]
            if not good:
                continue
            point = max(good, key=lambda p: p[f"k{k}"]["times_faster"]["median"])
            facts = {"vectors": c["vectors"], "items": c["items"], "name": c["name"], "k": k}
            rows.append({**facts, "setting": point["setting"], **point[f"k{k}"]})
    return rows


def main() -> None:
    """Run, print, write record and picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", default="10000,100000", help="catalog sizes, with commas")
    parser.add_argument("--vectors", default=",".join(VECTORS), help="kinds of vectors, with commas")
    parser.add_argument("--names", default=",".join(CURVES), help="indexes, with commas")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="measure curves anew that are there")
    parser.add_argument("--add", type=Path, help="another record, whose curves are joined to this one's")
    parser.add_argument("--out", type=Path, help="record; the picture lies beside it")
    options = parser.parse_args()
    path = options.out or RESULTS / "retrieval-recall-latency.json"
    known = json.loads(path.read_text()) if path.exists() else {"curves": []}
    curves = [{"cpu": known["machine"]["cpu"]} | c for c in known["curves"]]
    if options.add:
        known = {_key(c) for c in curves}
        curves += [c for c in json.loads(options.add.read_text())["curves"] if _key(c) not in known]
        _write(curves, path)
    for size in (int(text) for text in options.items.split(",") if text):
        for vectors_name in options.vectors.split(","):
            vectors, queries = VECTORS[vectors_name](size, WIDTH, options.queries)
            centres: dict[str, Any] = {}
            for name in options.names.split(","):
                own = [_key(c) == (vectors_name, size, name) for c in curves]
                if any(own) and not options.again:
                    continue
                print(f"{vectors_name}:", flush=True)
                made = {"vectors": vectors_name, **curve(vectors, queries, name, options.rounds, centres)}
                curves = [c for c, same in zip(curves, own, strict=True) if not same] + [made]
                _write(curves, path)
    draw_recall(curves, path.with_suffix(".png"))
    for row in fastest(curves):
        print(
            f"{row['vectors']:9} {row['items']:>9,} {row['name']:8} k {row['k']:<3} "
            f"recall {row['recall']:.3f} {row['p50_ms']:.3f} ms, "
            f"{row['times_faster']['median']:.1f} times faster than flat ({row['setting']})"
        )


def _write(curves: list[dict[str, Any]], path: Path) -> None:
    curves.sort(key=_key)
    body = {"d": WIDTH, "fastest_at_recall_0.95": fastest(curves), "curves": curves}
    record("retrieval-recall-latency", "python -m recsys.benchmarks.retrieval.recall_latency", body, path)


def _key(made: dict[str, Any]) -> tuple[str, int, str]:
    return made["vectors"], made["items"], made["name"]


if __name__ == "__main__":
    main()
