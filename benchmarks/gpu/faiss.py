"""Exact search from host to host: ours beside torch in blocks, and beside FAISS's index where FAISS is."""

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.gpu.vectors import clusters
from recsys.benchmarks.timing import alternate, summarize
from recsys.kernels.ranking import top_k

__all__ = ["blocks_top_k", "tasks"]

ITEMS, K = 1_000_000, 100
BATCHES = (1, 64, 512, 4_096)
BLOCK = 65_536


def tasks(scale: Scale) -> Iterator[Task]:
    """Batches of queries that come from the host and whose answers go there."""
    items, batches = (2_000, (4,)) if scale.dry else (ITEMS, BATCHES)
    table, queries = clusters(items, max(batches), scale.device)
    copy = _copy_of(table) if find_spec("faiss") is not None else None
    for batch in batches:
        yield _task(table, copy, queries[:batch].cpu(), scale)


def _task(table: Tensor, copy: Any, asked: Tensor, scale: Scale) -> Task:
    def ours() -> Tensor:
        return top_k(asked.to(table.device), table, K).ids.cpu()

    def blocks() -> Tensor:
        return blocks_top_k(asked.to(table.device), table, K)[1].cpu()

    sides: dict[str, Callable[[], Any]] = {"ours": ours, "torch, blocks of items": blocks}
    if copy is not None:
        host = asked.numpy()
        sides["FAISS"] = lambda: torch.from_numpy(copy.search(host, K)[1])

    def measured() -> dict[str, Any]:
        wanted = ours()
        same = {name: float((side() == wanted).float().mean()) for name, side in sides.items()}
        cpu = torch.device("cpu")  # by the clock: each side waits for its answer
        times = alternate(sides, device=cpu, seconds=scale.seconds, clock=time.perf_counter)
        entry = {"batch": len(asked), "k": K, "items": len(table), **summarize(times), "same_ids": same}
        return entry if copy is not None else entry | {"note": "FAISS is not installed here"}

    return Task(f"{K} of {len(table):,} items for {len(asked):,}", ours, measured)


def blocks_top_k(asked: Tensor, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best by brute force, a block of items at a time.

    Args:
        asked: (B, d).
        table: (V, d).
        k: answers.

    Returns:
        (B, k) scores, best first, and their int64 ids.
    """
    scores, ids = asked.new_empty(len(asked), 0), asked.new_empty(len(asked), 0, dtype=torch.int64)
    for first in range(0, len(table), BLOCK):
        part = asked @ table[first : first + BLOCK].T
        best, at = part.topk(min(k, part.shape[1]))
        scores, ids = torch.cat((scores, best), 1), torch.cat((ids, at + first), 1)
        scores, at = scores.topk(min(k, scores.shape[1]))
        ids = ids.gather(1, at)
    return scores, ids


def _copy_of(table: Tensor) -> Any:
    import faiss

    index = faiss.IndexFlatIP(table.shape[1])
    index.add(table.cpu().numpy())
    if table.is_cuda:
        from recsys.retrieval.gpu_library import load_gpu_faiss, to_gpu

        copy, resources = to_gpu(load_gpu_faiss(), index)
        copy.resources_that_live_as_long = resources
        return copy
    return index
