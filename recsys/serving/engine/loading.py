"""Models made ready: loaded and checked, and asked until nothing is left to compile."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from recsys.answering.each import Request
from recsys.errors import ArgumentError
from recsys.files import user_path
from recsys.recommender import Recommender
from recsys.serving.engine.served import Served, details_of, version_of, watermark_of

BATCHES = (1, 2, 64)
"""Requests in the batches that a model is warmed up with: kernels may be compiled by the size of a batch."""


def use_one_thread() -> None:
    """Let torch compute on the thread that calls it; for a process whose workers share a machine's cores."""
    import torch

    torch.set_num_threads(1)


def load_served(name: str, path: str | Path, *, device: str = "auto") -> Served:
    """Open a run folder; its weights are compared with their sha256, its index with its golden answers.

    Args:
        name: by which it is asked.
        path: of the run folder.
        device: as of `Recommender.load`.

    Raises:
        RunError, DataError, RetrievalError: missing, unfinished or damaged; the message says which file.
    """
    folder = user_path(path)
    model = Recommender.load(folder, device=device)
    return Served(
        name=name,
        path=folder,
        model=model,
        answerer=model.answerer(),
        version=version_of(model, folder),
        watermark=watermark_of(model.store_.meta),
        loaded=time.time(),
        details=details_of(folder) | {"time_zone": (model.store_.meta.get("time") or {}).get("time_zone")},
    )


def refuse_other_ids(served: Served, first: Served) -> None:
    """Refuse a model whose ids are of another kind than those of the models in service.

    Raises:
        ArgumentError: names the kind.
    """
    for kind in ("users", "items"):
        own, other = getattr(served.names, kind), getattr(first.names, kind)
        if own.is_int != other.is_int:
            words = ("text", "whole numbers")
            raise ArgumentError(
                f"{served.path}: {kind} are {words[own.is_int]} there, and {words[other.is_int]} in service: "
                "choose a run of the same log"
            )


def warm_up(
    served: Served, real: Sequence[Request] = (), *, notify: Callable[[str], None] | None = None
) -> None:
    """Ask a model in all the ways that it will be asked, so that no request waits for a compiler.

    Args:
        served: whose answers are thrown away.
        real: requests as they came in lately, in raw ids.
        notify: told of a step in one line.

    Raises:
        RecsysError: it cannot answer.
    """
    for requests in _shapes(served):
        if notify is not None:
            notify(f"warming up {served.name}: {len(requests)} requests")
        for found in served.answerer.answer(requests):
            if isinstance(found, Exception):
                raise found
    # What real requests asked wrongly is theirs.
    for start in range(0, len(real), max(BATCHES)):
        served.answerer.answer(real[start : start + max(BATCHES)])
    items = served.names.answerable.decode(served.first_item).to_list()
    served.model.similar_items(items, k=1)


def _shapes(served: Served) -> list[list[Request]]:
    """Batches of users of the log, the longest histories among them, under every kind of filter."""
    store = served.model.store_
    lengths = np.diff(np.asarray(store.offsets))
    order = np.argsort(-lengths, kind="stable")[: max(BATCHES)]
    users = served.names.users.decode(order.astype(np.int64)).to_list()
    users = [users[place % len(users)] for place in range(max(BATCHES))]
    items = served.names.items.decode(np.arange(min(2, served.names.items.ids.len()))).to_list()
    plain = [[Request(user=user) for user in users[:size]] for size in BATCHES]
    filters = [
        Request(user=users[0], exclude_seen=False),
        Request(user=users[0], allow=items),
        Request(user=users[0], deny=items),
        Request(user=users[0], interests=2),
        *(Request(user=users[0], category=name) for name in served.categories[:1]),
    ]
    return [*plain, filters, [Request(k=1)], [Request(k=1, allow=items, deny=items[:1])]]
