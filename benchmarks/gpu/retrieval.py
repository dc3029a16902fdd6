"""What only a GPU can say of an index: whether filters hold, and whether threads take turns."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from recsys.benchmarks.gpu.faiss import blocks_top_k
from recsys.benchmarks.gpu.stages import Scale, Task
from recsys.benchmarks.gpu.vectors import clusters
from recsys.kernels.ranking import top_k

__all__ = ["tasks"]

ITEMS, QUERIES, K = 50_000, 64, 10
THREADS, ASKED = 4, 16
SHARES = (0.5, 0.01)


def tasks(scale: Scale) -> Iterator[Task]:
    """Our kernel under allow-lists and threads; then FAISS's indexes, or one line that they are not there."""
    for share in SHARES:
        yield _task(f"kernel, {share:.0%} of the items allowed", partial(_allowed, scale, share))
    yield _task(f"kernel, {THREADS} threads at once", partial(_threads, scale))
    if find_spec("faiss") is None:
        yield _task("FAISS", lambda: {"note": "not installed here: its filters and threads are not checked"})
        return
    if scale.device.type == "cuda":
        yield _task("FAISS, a classic index and a selector", _classic)
    for kind in ("flat",) if scale.dry else ("gpu-flat", "gpu-ivf", "gpu-cagra"):
        yield _task(f"{kind}, filter and threads", partial(_kind, kind, scale))


def _task(name: str, check: Callable[[], dict[str, Any]]) -> Task:
    return Task(name, check, check)


def _sizes(scale: Scale) -> tuple[int, int]:
    return (600, 4) if scale.dry else (ITEMS, QUERIES)


def _allowed(scale: Scale, share: float) -> dict[str, Any]:
    """Nothing but allowed items, and those that brute force over them finds."""
    items, queries = _sizes(scale)
    table, asked = clusters(items, queries, scale.device)
    allowed = torch.arange(0, items, round(1 / share), device=scale.device)
    k = min(K, len(allowed))
    found = top_k(asked, table, k, candidates=allowed).ids
    wanted = allowed[blocks_top_k(asked, table[allowed], k)[1]]
    outside = int((~torch.isin(found, allowed)).sum())
    same = float((found == wanted).float().mean())
    return {"outside": outside, "same_ids": same, "passed": outside == 0 and same > 0.99}


def _threads(scale: Scale) -> dict[str, Any]:
    """The bits of one thread's answer in every thread's."""
    items, queries = _sizes(scale)
    table, asked = clusters(items, queries, scale.device)
    wanted = top_k(asked, table, K)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(lambda _: top_k(asked, table, K), range(ASKED)))
    same = [torch.equal(a.ids, wanted.ids) and torch.equal(a.scores, wanted.scores) for a in answers]
    return {"answers": len(same), "passed": all(same)}


def _classic() -> dict[str, Any]:
    """Whether the classic GPU index drops a selector, which is why ours never gives it one."""
    from recsys.retrieval.gpu_library import has_cuvs, load_gpu_faiss, to_gpu

    library = load_gpu_faiss()
    vectors, queries = (x.cpu().numpy() for x in clusters(ITEMS, QUERIES, torch.device("cuda")))
    index = library.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    copy, _resources = to_gpu(library, index)
    parameters = library.SearchParameters(sel=library.IDSelectorBatch(np.arange(0, ITEMS, 2)))
    try:
        ids = copy.search(queries, K, params=parameters)[1]
    except Exception as error:  # a version that refuses
        return {"refused": str(error)[:200], "cuvs": has_cuvs(library)}
    return {"drops_selectors": bool((ids % 2 == 1).any()), "cuvs": has_cuvs(library)}


def _kind(kind: str, scale: Scale) -> dict[str, Any]:
    """An index of a kind under a filter, against the exact one, and in threads."""
    from recsys.errors import RecsysError
    from recsys.retrieval.item_index import ItemIndex

    items, count = _sizes(scale)
    vectors, queries = (x.cpu().numpy() for x in clusters(items, count, scale.device))
    allowed = np.arange(0, items, 2)
    truth = ItemIndex.build(vectors, kind="exact", fingerprint="").search(queries, K, allow=allowed)
    options = {"nprobe": 200} if kind == "gpu-ivf" else {}
    try:
        index = ItemIndex.build(vectors, kind=kind, fingerprint="", options=options)
    except RecsysError as error:  # cuVS, for one, is not in every build
        return {"note": str(error)}
    answer = index.search(queries, K, allow=allowed)
    with ThreadPoolExecutor(THREADS) as pool:
        again = list(pool.map(lambda _: index.search(queries, K).ids, range(ASKED)))
    agree = all(np.array_equal(ids, again[0]) for ids in again)
    outside = int((answer.ids % 2 == 1).sum())
    same = float((answer.ids == truth.ids).mean())
    return {"outside": outside, "same_ids": same, "threads_agree": agree, "passed": outside == 0 and agree}
