"""Item vectors made of a query's nearest states, and their scores: our loop against its definition."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work
from recsys.kernels.local_aggregation import local_scores, reference

__all__ = ["cases"]

WIDTH, QUERIES, NEIGHBOURS, ITEMS = 64, 64, 300, 3_000


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """One comparison on a CPU, in float32; a datastore has as many states as a batch events."""
    if device.type != "cpu" or torch.float32 not in dtypes:
        return
    rng = np.random.default_rng(0)
    states = rng.standard_normal((max(events, NEIGHBOURS), WIDTH), dtype=np.float32)
    queries = rng.standard_normal((QUERIES, WIDTH), dtype=np.float32)
    owners = rng.integers(0, ITEMS, len(states))
    ids = np.stack([rng.choice(len(states), NEIGHBOURS, replace=False) for _ in range(QUERIES)])
    near = np.sort(-rng.random((QUERIES, NEIGHBOURS), dtype=np.float32), axis=1)[:, ::-1].copy()

    def by(score: Callable[..., tuple[object, object]]) -> Callable[[], Tensor]:
        # Those without an item are minus infinity: of no use to a comparison.
        return lambda: torch.as_tensor(score(queries, states, owners, ids, near)[0]).nan_to_num(neginf=0.0)

    sides = {"ours": by(local_scores), DEFINITION: by(reference.local_scores)}
    yield Case(
        "local_aggregation",
        f"{NEIGHBOURS} of {len(states):,} states for {QUERIES}",
        WIDTH,
        "float32",
        "forward",
        QUERIES,
        sides,
        upstreams=dict.fromkeys(sides, torch.ones(QUERIES, NEIGHBOURS)),
        work=Work(bytes=4.0 * ids.size * WIDTH, flops=4.0 * ids.size * WIDTH),
    )
