"""Exact search on a GPU: our kernel, FAISS's flat index and torch, at a million items of width 64.

    python -m recsys.benchmarks.retrieval.gpu

Also the four checks that only a GPU can make: that a classic index drops selectors (and our kinds do not),
that cuVS honours them, and that threads on one index take turns. Fractions of bandwidth count one reading
of the item table. Without FAISS there are no checks, and the speeds are ours and torch's. Our kernel's steps
are timed one by one as well: prefilter, choice of tiles, scores, choice of answers.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.retrieval.measuring import Floats, alternate, clustered, record, spread
from recsys.retrieval.gpu_library import has_cuvs, load_gpu_faiss
from recsys.retrieval.item_index import ItemIndex

K = 100


def checks() -> dict[str, Any]:
    """What the classic index does with a selector, and that our kinds answer as the exact one."""
    faiss = load_gpu_faiss()
    vectors, queries = clustered(50_000, 64, 64)
    allowed = np.arange(0, 50_000, 2)
    plain = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, _flat(faiss, vectors))
    parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))
    try:
        dropped = bool((plain.search(queries, 10, params=parameters)[1] % 2 == 1).any())
    except Exception as error:
        dropped = f"refused: {error}"[:200]  # type: ignore[assignment]
    truth = ItemIndex.build(vectors, kind="flat", fingerprint="").search(queries, 10, allow=allowed)
    found = {}
    for kind in ("gpu-flat", "gpu-ivf", *(("gpu-cagra",) if has_cuvs(faiss) else ())):
        index = ItemIndex.build(vectors, kind=kind, fingerprint="", options={"nprobe": 200})
        answer = index.search(queries, 10, allow=allowed)
        with ThreadPoolExecutor(4) as pool:
            again = list(pool.map(lambda _, index=index: index.search(queries, 10).ids, range(16)))
        found[kind] = {
            "filter_violations": int((answer.ids % 2 == 1).sum()),
            "agreement": float((answer.ids == truth.ids).mean()),
            "threads_agree": all(np.array_equal(a, again[0]) for a in again),
            "counters": index.counters,
        }
    return {"cuvs": has_cuvs(faiss), "classic_drops_selectors": dropped, "kinds": found}


def speeds(items: int, batches: list[int], rounds: int, bandwidth: float) -> list[dict[str, Any]]:
    """Milliseconds of each side at each batch size."""
    import torch

    from recsys.kernels.ranking import top_k

    vectors, queries = clustered(items, 64, max(batches))
    copy = None
    if find_spec("faiss") is not None:
        faiss = load_gpu_faiss()
        copy = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, _flat(faiss, vectors))
    table = torch.from_numpy(vectors).cuda()
    rows = []
    for batch in batches:
        asked = torch.from_numpy(queries[:batch]).cuda()

        def ours(asked: Any = asked) -> None:
            top_k(asked, table, K)
            torch.cuda.synchronize()

        def torch_side(asked: Any = asked) -> None:
            (asked @ table.T).topk(K)
            torch.cuda.synchronize()

        def faiss_side(host: Floats = queries[:batch]) -> None:
            assert copy is not None
            copy.search(host, K)

        sides = {"ours": ours, "torch": torch_side} | ({} if copy is None else {"faiss": faiss_side})
        seconds = alternate(sides, rounds)
        table_seconds = vectors.nbytes / bandwidth
        rows.append(
            {
                "batch": batch,
                "ms": {name: spread(times) for name, times in seconds.items()},
                "steps": steps(asked, table, rounds),
                "fraction_of_bandwidth": {
                    name: table_seconds / float(np.median(times)) for name, times in seconds.items()
                },
            }
        )
        print(rows[-1], flush=True)
    return rows


def steps(asked: Any, table: Any, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each step of our search, for the first 512 rows: about what its workspace holds."""
    import torch

    from recsys.kernels.ranking import triton_top_k_launch as ours

    catalog = ours.Catalog(None, None, len(table))
    asked = asked[:512]
    config = ours.prefilter_config(asked, "tf32")
    bounds, _ = ours.bound_tiles(asked, table, catalog, None, "tf32", config)
    picked = bounds.topk(ours.picks_of(K), sorted=False)[1]
    keys, _ = ours.score_tiles(asked, table, catalog, None, picked, config.blocks["BLOCK_B"])
    sides = {
        "prefilter": lambda: ours.bound_tiles(asked, table, catalog, None, "tf32", config),
        "choice of tiles": lambda: bounds.topk(ours.picks_of(K), sorted=False),
        "scores": lambda: ours.score_tiles(asked, table, catalog, None, picked, config.blocks["BLOCK_B"]),
        "choice of answers": lambda: keys.topk(K),
    }

    def waited(side: Any) -> Any:
        def run() -> None:
            side()
            if asked.is_cuda:
                torch.cuda.synchronize()

        return run

    seconds = alternate({name: waited(side) for name, side in sides.items()}, rounds)
    return {name: spread(times) for name, times in seconds.items()}


def _flat(faiss: Any, vectors: Floats) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--batches", default="1,8,64,512,4096")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--bandwidth", type=float, default=3.35e12, help="bytes per second; H100 SXM: 3.35e12"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    batches = [int(text) for text in options.batches.split(",")]
    body = {
        "benchmark": "exact search",
        "device": "cuda",
        "checks": "FAISS is not installed" if find_spec("faiss") is None else checks(),
        "items": options.items,
        "k": K,
        "speeds": speeds(options.items, batches, options.rounds, options.bandwidth),
    }
    print(body["checks"])
    record("retrieval-gpu", "python -m recsys.benchmarks.retrieval.gpu", body, options.out)


if __name__ == "__main__":
    main()
