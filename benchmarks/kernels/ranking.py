"""Exact search of a catalog and ranks of targets on a CPU, against PyTorch's product and FAISS."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work
from recsys.benchmarks.kernels.padding import draw
from recsys.benchmarks.kernels.shapes import catalog
from recsys.errors import MissingDependencyError
from recsys.kernels.ranking import rank_of_target, top_k

__all__ = ["RIVAL", "cases", "rank_case", "search_case"]

WIDTH, ITEMS = 64, 100_000
BATCHES = ((1, 10), (32, 10), (256, 10), (256, 100))
"""Queries, and answers to each."""
RANKED = (1_024, 12_101)
"""Rows with a target, and items."""
RIVAL = "torch, matmul and topk"


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on a CPU; on a GPU `recsys.benchmarks.gpu.topk` has them."""
    if device.type != "cpu":
        return
    for dtype in dtypes:
        items = catalog(ITEMS, events)
        table = draw(items, WIDTH, seed=0, device=device, dtype=dtype)
        index = _faiss(table)
        for queries, k in BATCHES:
            yield search_case(table, index, queries, k)
        rows, items = min(RANKED[0], events), catalog(RANKED[1], events)
        yield rank_case(rows, items, dtype, device)


def search_case(table: Tensor, index: Any, queries: int, k: int, asked: Tensor | None = None) -> Case:
    """The k best of a table's items.

    Args:
        table: (V, `WIDTH`).
        index: FAISS's over the same items on a CPU, or None.
        queries: B.
        k: answers to each.
        asked: (B, `WIDTH`); None for normal numbers.
    """
    if asked is None:
        asked = draw(queries, WIDTH, seed=1, device=table.device, dtype=table.dtype)
    sides: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: top_k(asked, table, k).scores,
        RIVAL: lambda: torch.topk(asked @ table.T, k).values,
        DEFINITION: lambda: top_k(asked, table, k, backend="reference").scores,
    }
    if index is not None:
        sides["FAISS IndexFlatIP"] = lambda: _ask(index, asked, k)
    size, items = table.element_size(), len(table)
    return Case(
        "ranking, top k",
        f"{k} of {items:,} items for {queries}",
        WIDTH,
        str(table.dtype).removeprefix("torch."),
        "forward",
        queries,
        sides,
        upstreams=dict.fromkeys(sides, draw(queries, k, seed=2, device=table.device, dtype=torch.float32)),
        work=Work(bytes=(items + queries) * WIDTH * size, flops=2.0 * queries * items * WIDTH),
    )


def rank_case(rows: int, items: int, dtype: torch.dtype, device: torch.device) -> Case:
    """Each row's target among all items."""
    table = draw(items, WIDTH, seed=3, device=device, dtype=dtype)
    hidden = draw(rows, WIDTH, seed=4, device=device, dtype=dtype)
    targets = torch.arange(rows, device=device) * 7_919 % items

    def counted() -> Tensor:
        scores = hidden @ table.T
        return (scores >= scores.gather(1, targets[:, None])).sum(1)

    sides: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: rank_of_target(hidden, table, targets).kept,
        "torch, all scores": counted,
        DEFINITION: lambda: rank_of_target(hidden, table, targets, backend="reference").kept,
    }
    return Case(
        "ranking, rank of target",
        f"{rows:,} rows, {items:,} items",
        WIDTH,
        str(dtype).removeprefix("torch."),
        "forward",
        rows,
        sides,
        upstreams=dict.fromkeys(sides, draw(rows, seed=5, device=device, dtype=torch.float32)),
        work=Work(bytes=(items + rows) * WIDTH * table.element_size(), flops=2.0 * rows * items * WIDTH),
    )


def _faiss(table: Tensor) -> Any:
    """A flat index over the table on torch's number of threads; None without FAISS."""
    from recsys.retrieval.faiss_library import load_faiss

    try:
        faiss = load_faiss()
    except MissingDependencyError:
        return None
    index = faiss.IndexFlatIP(table.shape[1])
    index.add(table.float().numpy())
    return index


def _ask(index: Any, asked: Tensor, k: int) -> Tensor:
    from recsys.retrieval.faiss_library import load_faiss

    load_faiss().omp_set_num_threads(torch.get_num_threads())
    return torch.from_numpy(index.search(asked.float().numpy(), k)[0])
