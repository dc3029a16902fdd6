"""Kinds of index on a server: what Qdrant and pgvector have in common.

The server proposes rows. Everything that is promised is kept here, from the run's own vectors: each proposed
row is checked, scored in float64 and ordered, and a query that is left short is finished by an exact scan.
Short allow-lists are scanned here in the first place: copying a few vectors takes less than asking a server.

What lies on the server is named by a digest of its vectors, their catalog and the options it was built by. It
is never changed: another index is another collection, made beside the first. When a folder holds the new one,
it gets the name that was asked for, and the one before is kept for services that still search it. Killed at
any moment, the folder names an index that is there. A name belongs to one run: its older indexes are removed.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from recsys.errors import RetrievalError
from recsys.kernels.rescoring import SLACK
from recsys.retrieval.approximate import ApproximateBackend, Proposer
from recsys.retrieval.backends import Parts
from recsys.retrieval.exact import ExactBackend
from recsys.retrieval.filters import Filters, Ints
from recsys.retrieval.gathered import PRODUCTS_ON_ONE_THREAD, GatheredIndexes, scan_on_this_thread
from recsys.retrieval.metric import Floats32, Metric, Proposals, longest, order_exactly
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.planner import GRAPH_SHARE, Engine

FORMAT = "recsys item index"
"""What a collection or table says it is."""
VERSION = 1

LONGEST_LIST = 50_000
"""Most ids that a search sends, to allow them or to leave them out: a quarter of a megabyte. Scanning where
more of both are allowed and denied takes less than reading them."""
PART = 64
"""Queries of one request."""


class OwnScan:
    """The run's own vectors: exact scans by the ranking kernel, on the CPU.

    Args:
        vectors: (V, d) float32 on the CPU.
        metric: of the scores.
    """

    def __init__(self, vectors: Tensor, metric: Metric) -> None:
        self.vectors = vectors
        self.array: Floats32 = vectors.numpy()
        self.longest = longest(self.array)
        self._metric = metric
        self._exact = ExactBackend(vectors, metric)
        self._gathered = GatheredIndexes(self.array.__getitem__, 4 * self.array.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(V, d)."""
        return self._exact.shape

    def search(self, queries: Tensor, k: int, filters: Filters) -> tuple[Tensor, Tensor]:
        """See `SearchBackend`."""
        everyone = np.arange(len(queries), dtype=np.int64)
        scores, ids = self.search_rows(queries.cpu().numpy(), k, filters, everyone)
        return torch.from_numpy(scores), torch.from_numpy(ids)

    def search_rows(self, queries: Floats32, k: int, filters: Filters, chosen: Ints) -> tuple[Floats32, Ints]:
        """Answer the (r,) chosen queries of a batch, whose filters are those of the whole batch."""
        asked = np.ascontiguousarray(queries[chosen])
        allowed = filters.candidates
        if (
            allowed is not None
            and self._metric != "l2"
            and len(allowed) * asked.size <= PRODUCTS_ON_ONE_THREAD
        ):
            return scan_on_this_thread(
                asked,
                self.array,
                self._gathered.get(allowed),
                k,
                excluded=int(np.diff(filters.offsets)[chosen].max()),
                longest_item=self.longest,
                metric=self._metric,
                filters=filters,
                rows=chosen,
            )
        fetched = min(k + SLACK, self.shape[0])
        near, ids = self._exact.search(torch.from_numpy(asked), fetched, filters.of_rows(chosen))
        scores, ordered, _ = order_exactly(
            asked,
            self.array,
            Proposals(ids.numpy(), near.numpy(), fetched == self.shape[0]),
            k,
            metric=self._metric,
            longest_item=self.longest,
            filters=filters,
            rows=chosen,
        )
        return scores, ordered


class ServerProposer(Proposer, Protocol):
    """What lies on a server."""

    def publish(self) -> None:
        """Give it the collection's name, and remove all others of that name but the one that had it before.

        Raises:
            RetrievalError: the name is that of something else.
            IndexServerError: the server cannot be reached.
        """


class RemoteBackend(ApproximateBackend):
    """An index on a server over the run's own vectors.

    Args:
        vectors: (V, d) float32 on the CPU.
        metric: of the scores.
        proposer: what lies on the server.
    """

    def __init__(self, vectors: Tensor, metric: Metric, proposer: ServerProposer) -> None:
        super().__init__(OwnScan(vectors, metric), proposer, metric)
        self._on_server = proposer

    def publish(self) -> None:
        """See `ServerProposer`; called once the index is saved, before which nothing may be removed."""
        self._on_server.publish()


def backend_on_server(
    vectors: Tensor,
    metric: Metric,
    options: IndexOptions,
    parts: Parts | None,
    catalog: str,
    *,
    put: Callable[[str, Floats32], None],
    proposer: Callable[[str, int], ServerProposer],
) -> RemoteBackend:
    """An index on a server: put there, or the one that is there already.

    Args:
        vectors: (V, d).
        metric: of the scores.
        options: the graph's.
        parts: what the proposer's `parts` gave, to open an index; None puts one there.
        catalog: names the encoder and the item ids.
        put: puts (V, d) vectors there under a digest.
        proposer: of what lies there under a digest, of so many items.

    Raises:
        RetrievalError: the saved index points to another one.
    """
    own = vectors.detach().cpu().clone().contiguous()
    digest = digest_of(own.numpy(), metric, options, catalog)
    if parts is None:
        put(digest, own.numpy())
    else:
        check_part(parts, digest)
    return RemoteBackend(own, metric, proposer(digest, len(own)))


def server_engine(deepest: int) -> Engine:
    """What the planner is told of a server's graph, which answers so many items at most."""
    return Engine(
        exact=False,
        selectors=True,
        selector_share=GRAPH_SHARE,
        deepest=deepest,
        longest_list=LONGEST_LIST,
    )


def digest_of(vectors: Floats32, metric: Metric, options: IndexOptions, catalog: str) -> str:
    """Hexadecimal sha256 of everything that decides what a server is to hold.

    Args:
        vectors: (V, d) as searched.
        metric: of the scores; cosine's vectors are normalized and searched by inner product.
        options: of which those that the graph is built by.
        catalog: names the encoder and the item ids that the rows stand for.
    """
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "l2": metric == "l2",
        "shape": list(vectors.shape),
        "catalog": catalog,
        "hnsw_m": options.hnsw_m,
        "ef_construction": options.ef_construction,
    }
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    found.update(np.ascontiguousarray(vectors, dtype="<f4").data)
    return found.hexdigest()


def facts_of(digest: str, vectors: Floats32) -> dict[str, Any]:
    """What a collection or table says of itself, as plain JSON."""
    return {"format": FORMAT, "version": VERSION, "digest": digest, "items": len(vectors)}


def name_of(collection: str, digest: str) -> str:
    """The name of what lies on the server under this digest."""
    return f"{collection}_{digest[:12]}"


def is_ours(name: str, collection: str) -> bool:
    """Whether a name is one of `name_of`'s for a collection, of any digest."""
    head, _, tail = name.rpartition("_")
    return head == collection and len(tail) == 12 and all(sign in "0123456789abcdef" for sign in tail)


def digest_part(digest: str) -> dict[str, Tensor]:
    """The pointer that is saved beside the vectors; the address is among the options."""
    return {"digest": torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8)}


def check_part(parts: Parts, digest: str) -> None:
    """Refuse a saved pointer to something else.

    Raises:
        RetrievalError: see above.
    """
    if bytes(parts["digest"].numpy()).hex() != digest:
        raise RetrievalError("the saved index points to another one than its vectors: build the index again")


def mismatch(where: str, found: object, digest: str) -> RetrievalError:
    """The error of a collection or table that is there and holds something else."""
    said = f"fingerprint {str(found)[:12]}" if found else "no fingerprint"
    return RetrievalError(
        f"{where}: holds another index than this run's ({said}, not {digest[:12]}); build the index again"
    )


def listed(allowed: Ints, n_items: int) -> tuple[list[int], bool]:
    """The shorter of the lists of allowed and of other items, and whether it is that of the others."""
    if 2 * len(allowed) <= n_items:
        return allowed.tolist(), False
    left = np.ones(n_items, dtype=np.bool_)
    left[allowed] = False
    return np.flatnonzero(left).tolist(), True


def as_rows(found: list[list[int]]) -> Ints:
    """(b, m) int64 ids of the longest list's length, -1 behind shorter ones."""
    ids = np.full((len(found), max(map(len, found), default=0) or 1), -1, dtype=np.int64)
    for row, own in enumerate(found):
        ids[row, : len(own)] = own
    return ids
