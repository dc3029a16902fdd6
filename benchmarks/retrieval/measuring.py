"""What the programs share: vectors to search, alternating timings, records."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.benchmarks import timing
from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import commit, stamp
from recsys.files import write_json

Floats = NDArray[np.float32]


def clustered(n: int, d: int, queries: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Item vectors and queries in clusters, of lengths that differ.

    Args:
        n: items.
        d: width.
        queries: queries.
        seed: of the draw.

    Returns:
        (n, d) vectors and (queries, d) queries, float32. Clusters grow with the root of n, as wide as they
        lie apart; lengths are log-normal with deviation 0.3, as popular items' are greater than rare ones'.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(16, int(n**0.5)), d))
    place = rng.integers(0, len(centres), n)
    vectors = centres[place] + rng.standard_normal((n, d))
    vectors *= np.exp(0.3 * rng.standard_normal((n, 1)))
    asked = centres[rng.integers(0, len(centres), queries)] + rng.standard_normal((queries, d))
    return vectors.astype(np.float32), asked.astype(np.float32)


def spectral(n: int, d: int, queries: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Item vectors and queries that fill few of their d directions, as a well trained encoder's do.

    Variances fall as 1/i, which makes 13.8 effective directions of 64, (sum l)^2 / sum l^2; lengths are
    log-normal with deviation 0.2. Trained tables on ml-100k have 4 to 12 and 0.14 to 0.3; on a log of 9
    events a user (Beauty) they have 49, nearer to `isotropic`. Arguments and results as in `clustered`.
    """
    rng = np.random.default_rng(seed)
    scale = 1 / np.sqrt(np.arange(1, d + 1))
    vectors = rng.standard_normal((n, d)) * scale * np.exp(0.2 * rng.standard_normal((n, 1)))
    return vectors.astype(np.float32), (rng.standard_normal((queries, d)) * scale).astype(np.float32)


def isotropic(n: int, d: int, queries: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Item vectors and queries without any structure: the worst case. As in `clustered`."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, d)).astype(np.float32)
    return vectors, rng.standard_normal((queries, d)).astype(np.float32)


VECTORS: dict[str, Callable[[int, int, int], tuple[Floats, Floats]]] = {
    "clustered": clustered,
    "spectral": spectral,
    "isotropic": isotropic,
}


def alternate(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each side in every round; the sides take turns.

    One thread on an idle machine takes as long by the clock on the wall. Processor time leaves out what busy
    neighbours took; that they slow caches and memory hits all sides alike.

    Args:
        sides: what to time, by name; each is called once before, untimed.
        rounds: how often.
    """
    for side in sides.values():
        side()
    return timing.alternate(
        sides, device=torch.device("cpu"), seconds=0.0, least=rounds, most=rounds, clock=time.process_time
    )


def ratio(seconds: Mapping[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times longer `slow` takes than `fast`: median, quartiles over rounds."""
    each = np.array(seconds[slow]) / np.array(seconds[fast])
    low, middle, high = np.quantile(each, [0.25, 0.5, 0.75])
    return {"median": float(middle), "q25": float(low), "q75": float(high)}


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: median and 99th percentile."""
    return {"p50_ms": 1e3 * float(np.median(seconds)), "p99_ms": 1e3 * float(np.quantile(seconds, 0.99))}


def recall(found: NDArray[np.int64], best: NDArray[np.int64]) -> float:
    """Share of the best items that were found, row by row."""
    hits = [len(np.intersect1d(f, b)) for f, b in zip(found, best, strict=True)]
    return float(np.mean(hits) / best.shape[1])


def record(name: str, program: str, body: dict[str, Any], out: Path | None) -> Path:
    """Write a result with the machine, commit and time."""
    path = out or RESULTS / f"{name}.json"
    head = {
        "program": program,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": stamp()["machine"] | {"faiss": faiss_version()},
    }
    write_json(path, head | body)
    return path


def faiss_version() -> str | None:
    """FAISS's version, or None."""
    from recsys.errors import MissingDependencyError
    from recsys.retrieval.faiss_library import load_faiss

    try:
        return str(load_faiss().__version__)
    except MissingDependencyError:
        return None
