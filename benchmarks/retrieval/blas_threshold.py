"""From how many queries on FAISS's flat index is faster with BLAS, on this machine and number of threads.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.blas_threshold

FAISS uses BLAS from `faiss.cvar.distance_compute_blas_threshold` query components (queries * d) on. From
1.14.2 on that is 128,000; `recsys.retrieval.faiss_library` lowers it to 8 queries. This shows what it
should be here.
"""

import argparse
from pathlib import Path
from typing import Any

from recsys.benchmarks.retrieval.measuring import alternate, clustered, ratio, record
from recsys.retrieval.faiss_library import load_faiss

BATCHES = (1, 2, 4, 8, 16, 32, 128)


def crossover(items: int, width: int, rounds: int) -> dict[str, Any]:
    """Time both ways at each batch size."""
    faiss = load_faiss()
    vectors, queries = clustered(items, width, max(BATCHES))
    index = faiss.IndexFlatIP(width)
    index.add(vectors)
    before = faiss.cvar.distance_compute_blas_threshold

    def search(batch: int, threshold: int) -> Any:
        def run() -> None:
            faiss.cvar.distance_compute_blas_threshold = threshold
            index.search(queries[:batch], 100)

        return run

    rows: list[dict[str, Any]] = []
    try:
        for batch in BATCHES:
            seconds = alternate({"scan": search(batch, 2**30), "blas": search(batch, 1)}, rounds)
            rows.append({"queries": batch, "scan_over_blas": ratio(seconds, "scan", "blas")})
            print(
                f"{batch:4} queries: BLAS {rows[-1]['scan_over_blas']['median']:.2f} times as fast",
                flush=True,
            )
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
    first = next((row["queries"] for row in rows if row["scan_over_blas"]["median"] > 1), None)
    return {"items": items, "d": width, "threads": faiss.omp_get_max_threads(), "first": first, "rows": rows}


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = crossover(options.items, options.width, options.rounds)
    record(
        "retrieval-blas-threshold",
        "python -m recsys.benchmarks.retrieval.blas_threshold",
        result,
        options.out,
    )


if __name__ == "__main__":
    main()
