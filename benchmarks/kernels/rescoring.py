"""The end of a search: proposals scored in float64 and ordered, against the same in numpy."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work
from recsys.benchmarks.kernels.shapes import catalog
from recsys.kernels.rescoring import reference, rescore

__all__ = ["cases"]

WIDTH, ITEMS, QUERIES, PROPOSALS, ANSWERS = 64, 100_000, 64, 200, 20
NONE, NO_NUMBERS = np.empty(0, dtype=np.int64), np.empty(0)
NO_SCORES = np.empty((0, 0), dtype=np.float32)


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """One comparison on a CPU, in float32, one thread on every side."""
    if device.type != "cpu" or torch.float32 not in dtypes:
        return
    rng = np.random.default_rng(0)
    items = catalog(ITEMS, events)
    vectors = rng.standard_normal((items, WIDTH), dtype=np.float32)
    queries = rng.standard_normal((QUERIES, WIDTH), dtype=np.float32)
    ids = rng.integers(0, items, (QUERIES, PROPOSALS))
    permitted = torch.ones(QUERIES, items, dtype=torch.bool)
    longest = float(np.linalg.norm(vectors, axis=1).max())

    def ours() -> Tensor:
        scores, found = np.empty((QUERIES, ANSWERS), dtype=np.float32), np.empty((QUERIES, ANSWERS), np.int64)
        rows, doubtful = np.arange(QUERIES), np.empty(QUERIES, dtype=np.bool_)
        rescore(
            queries, vectors, False, ids, NO_SCORES, 1.0, NO_NUMBERS, False, NONE, NONE, NONE, NONE, rows,
            ANSWERS, PROPOSALS, longest, scores, found, doubtful,
        )  # fmt: skip
        return torch.from_numpy(scores)

    def definition() -> Tensor:
        asked, proposed = torch.from_numpy(queries), torch.from_numpy(ids)
        table = torch.from_numpy(vectors)
        return reference.rescore(asked, table, proposed, permitted, ANSWERS, squared=False)[0]

    sides = {
        "ours": ours,
        "numpy": lambda: torch.from_numpy(_in_numpy(queries, vectors, ids)),
        DEFINITION: definition,
    }
    yield Case(
        "rescoring",
        f"{ANSWERS} of {PROPOSALS} proposals for {QUERIES}, {items:,} items",
        WIDTH,
        "float32",
        "forward",
        QUERIES,
        sides,
        upstreams=dict.fromkeys(sides, torch.ones(QUERIES, ANSWERS)),
        work=Work(bytes=4.0 * ids.size * WIDTH, flops=2.0 * ids.size * WIDTH),
    )


def _in_numpy(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(b, k) best scores of the proposals, each once."""
    scores = np.einsum("bmd,bd->bm", vectors[ids].astype(np.float64), queries.astype(np.float64))
    found = np.empty((len(ids), ANSWERS), dtype=np.float32)
    for row, own in enumerate(ids):
        _, places = np.unique(own, return_index=True)
        found[row] = -np.sort(-scores[row, places])[:ANSWERS]
    return found
