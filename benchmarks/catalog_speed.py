"""Speed of the catalog kernels on a CPU: full cross-entropy, sampled losses and top-k beside other ways.

    python -m recsys.benchmarks.catalog_speed --json benchmarks/results/catalog-speed.json

Cross-entropy, forward and backward at d = 64, against `F.cross_entropy(h @ W.T)` and torch's chunked
`F.linear_cross_entropy` with its automatic chunk and with the best of several, found beforehand. Sampled
losses against the same formula in PyTorch operations. Top-k on one and two threads against FAISS
`IndexFlatIP` and matmul with topk. Sides alternate; the ratio of each to ours is the median over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.alternating import alternate, lines
from recsys.benchmarks.machine import stamp
from recsys.files import write_json

LOSS_SHAPES = [(8192, 3706), (8192, 12_101), (2048, 50_000)]
CHUNKS = (64, 128, 256, 512, 1024)
TOP_K = [(queries, k, 1) for queries in (1, 32, 256) for k in (10, 100)] + [
    (1, 10, 2),
    (256, 10, 2),
    (256, 100, 2),
]
"""Queries, answers and threads."""
WIDTH = 64


def _inputs(rows: int, items: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, WIDTH, generator=generator, requires_grad=True)
    weight = (0.1 * torch.randn(items, WIDTH, generator=generator)).requires_grad_()
    return hidden, weight, torch.randint(0, items, (rows,), generator=generator)


def _both_ways(loss: Callable[[], Tensor], *leaves: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(loss(), leaves)


def _chunked(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int | None
) -> Callable[[], Tensor] | None:
    """PyTorch's own chunked loss, where this version has it."""
    options_class = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    compute = getattr(F, "linear_cross_entropy", None)
    if options_class is None or compute is None:
        return None
    options = options_class() if chunk is None else options_class(batch_chunk_size=chunk)
    return lambda: compute(hidden, weight, targets, options=options)


def full_loss(rows: int, items: int, rounds: int) -> dict[str, Any]:
    """Ours against torch's three ways."""
    from recsys.kernels.cross_entropy import linear_cross_entropy

    hidden, weight, targets = _inputs(rows, items)
    leaves = (hidden, weight)
    sides: dict[str, Callable[[], object]] = {
        "ours": _both_ways(lambda: linear_cross_entropy(hidden, weight, targets), *leaves),
        "F.cross_entropy(h @ W.T)": _both_ways(lambda: F.cross_entropy(hidden @ weight.T, targets), *leaves),
    }
    automatic = _chunked(hidden, weight, targets, None)
    if automatic is not None:
        chunked = {chunk: _chunked(hidden, weight, targets, chunk) for chunk in CHUNKS}
        tried = {chunk: _both_ways(loss, *leaves) for chunk, loss in chunked.items() if loss is not None}
        best = min(tried, key=lambda chunk: statistics.median(_seconds(tried[chunk]) for _ in range(3)))
        sides["torch chunked, automatic"] = _both_ways(automatic, *leaves)
        sides[f"torch chunked, {best} rows"] = tried[best]
    for name, work in sides.items():
        for a, b in zip(work(), sides["ours"](), strict=True):  # type: ignore[call-overload]
            assert float((a - b).norm() / b.norm()) < 1e-4, name
    return alternate(sides, base="ours", rounds=rounds)


def sampled_loss(rows: int, items: int, negatives: int, shared: bool, rounds: int) -> dict[str, Any]:
    """Our sampled softmax with sparse gradients against its definition in PyTorch."""
    from recsys.kernels.sampled_loss import sampled_softmax_loss
    from recsys.kernels.sampling import draw_negatives, draw_shared, uniform_sampler

    hidden, weight, targets = _inputs(rows, items)
    sampler = uniform_sampler(items)
    ids = draw_shared(sampler, negatives, 1) if shared else draw_negatives(sampler, targets, negatives, 1)

    def side(backend: str) -> Callable[[], object]:
        return _both_ways(
            lambda: sampled_softmax_loss(hidden, weight, targets, ids, sparse=True, backend=backend),
            hidden,
            weight,
        )

    return alternate(
        {"ours": side("cpu"), "PyTorch operations": side("reference")}, base="ours", rounds=rounds, warm=1
    )


def ranking(queries: int, items: int, k: int, rounds: int) -> dict[str, Any]:
    """Top-k of a batch of queries, on as many threads as torch uses."""
    from recsys.kernels.ranking import top_k

    generator = torch.Generator().manual_seed(0)
    table = torch.randn(items, WIDTH, generator=generator)
    asked = torch.randn(queries, WIDTH, generator=generator)
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: top_k(asked, table, k),
        "matmul + topk": lambda: torch.topk(asked @ table.T, k),
    }
    try:
        import faiss
    except ImportError:
        print("faiss is not installed: its side is left out")
    else:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(WIDTH)
        index.add(table.numpy())
        sides["FAISS IndexFlatIP"] = lambda: index.search(asked.numpy(), k)
        found = index.search(asked.numpy(), k)[1]
        assert (top_k(asked, table, k).ids.numpy() == found).mean() > 0.999
    return alternate(sides, base="ours", rounds=rounds)


def peak(rounds: int) -> dict[str, float]:
    """What one thread can do at most here: multiply-adds on registers, and reading the items in order."""
    import numpy as np

    from recsys.benchmarks.catalog_limits import multiply_adds, read_all

    values = np.full(4096, 1e-9, dtype=np.float32)
    table = np.ones(100_000 * WIDTH, dtype=np.float32)
    done = multiply_adds(values, 1), read_all(table)
    assert all(np.isfinite(done))
    steps = 500_000
    flop = min(_seconds(lambda: multiply_adds(values, steps)) for _ in range(3 * rounds))
    read = min(_seconds(lambda: read_all(table)) for _ in range(3 * rounds))
    return {"gflops": multiply_adds(values, 0) * steps / flop / 1e9, "read_100k_items_ms": 1e3 * read}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Run and print; write JSON if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=["full", "sampled", "top-k"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases: dict[str, Any] = {}
    limits: dict[str, float] = {}

    def run(title: str, result: dict[str, Any]) -> None:
        cases[title] = result
        print("\n".join(lines(title, result)), flush=True)

    rounds = arguments.rounds
    if "full" in arguments.parts:
        for rows, items in LOSS_SHAPES:
            run(f"cross-entropy, N {rows:,}, V {items:,}", full_loss(rows, items, rounds))
    if "sampled" in arguments.parts:
        for negatives, shared in ((256, False), (2048, True)):
            title = (
                f"sampled softmax, N 2,048, V 1,000,000, K {negatives:,} {'shared' if shared else 'per row'}"
            )
            run(title, sampled_loss(2048, 1_000_000, negatives, shared, max(3, rounds // 3)))
    if "top-k" in arguments.parts:
        limits = peak(rounds)
        print(
            f"one thread: {limits['gflops']:.0f} GFLOP/s, items read in {limits['read_100k_items_ms']:.2f} ms"
        )
        for queries, k, threads in TOP_K:
            torch.set_num_threads(threads)
            title = (
                f"top {k} of 100,000, {queries} queries, {'one thread' if threads == 1 else 'two threads'}"
            )
            # A call for one query is short enough to be lost in another program's turn.
            run(title, ranking(queries, 100_000, k, rounds * 5 if queries == 1 else rounds))
        torch.set_num_threads(arguments.threads)
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), "rounds": rounds, "limits": limits, "cases": cases})


if __name__ == "__main__":
    main()
