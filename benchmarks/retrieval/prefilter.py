"""How often the GPU's top-k needs a second round: rows that a prefilter leaves in doubt, computed on a CPU.

    python -m recsys.benchmarks.retrieval.prefilter --items 200000

Makes the bounds of every tile as the kernel does, with operands cut to TF32, and asks its question: is the
k-th best score above the least bound among the tiles picked?
"""

import argparse

import numpy as np

from recsys.benchmarks.retrieval.measuring import VECTORS, Floats
from recsys.kernels.ranking.triton_top_k_launch import TILE, picks_of, relative_error


def doubts(vectors: Floats, queries: Floats, k: int, precision: str) -> float:
    """The share of queries whose answer one prefilter does not prove.

    Args:
        vectors: (V, d).
        queries: (b, d).
        k: answers.
        precision: "tf32" or "tf32x3"; the latter's products are taken as exact.
    """
    cut = (lambda x: (x.view(np.int32) & -(2**13)).view(np.float32)) if precision == "tf32" else np.asarray
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    bounds = cut(queries) @ cut(vectors).T + relative_error(precision, vectors.shape[1]) * lengths
    gap = ((0, 0), (0, -len(vectors) % TILE))
    best = np.pad(bounds, gap, constant_values=-np.inf).reshape(len(queries), -1, TILE).max(2)
    picks = min(picks_of(k), best.shape[1] - 1)
    least = -np.partition(-best, picks - 1, axis=1)[:, picks - 1]
    last = -np.partition(-(queries @ vectors.T), k - 1, axis=1)[:, k - 1]
    return float((least >= last).mean())


def main() -> None:
    """Print a line for each kind of vectors, k and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--queries", type=int, default=64)
    options = parser.parse_args()
    for name, make in VECTORS.items():
        vectors, queries = make(options.items, options.width, options.queries)
        for k in (10, 100):
            shares = {p: doubts(vectors, queries, k, p) for p in ("tf32", "tf32x3")}
            told = ", ".join(f"{p} {share:.1%}" for p, share in shares.items())
            print(f"{name:9} {options.items:>9,} items, k {k:3}: in doubt after {told}")


if __name__ == "__main__":
    main()
