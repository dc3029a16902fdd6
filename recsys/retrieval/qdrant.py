"""The `qdrant` kind: a collection of a Qdrant server proposes the items."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from recsys.retrieval.addresses import check_collection, check_url
from recsys.retrieval.backends import Parts
from recsys.retrieval.connections import Connections
from recsys.retrieval.filters import Ints
from recsys.retrieval.metric import Floats32, Metric
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.qdrant_collection import build_collection, check_whole, publish_collection
from recsys.retrieval.qdrant_library import connect, load_qdrant, lost, speaking_of
from recsys.retrieval.remote import (
    PART,
    RemoteBackend,
    as_rows,
    backend_on_server,
    digest_part,
    listed,
    name_of,
    server_engine,
)

_DEEPEST = 10_000
"""Most items that are asked for: an answer of a megabyte."""
_SECONDS = 5
"""That a search may take."""

T = TypeVar("T")


class CollectionProposer:
    """A collection that `build_collection` made.

    Args:
        options: `url`, `collection` and `ef_search` of them.
        digest: of the index.
        n_items: rows V.

    Raises:
        RetrievalError: the collection is of another index.
        IndexServerError: it is not there, or the server cannot be reached.
    """

    def __init__(self, options: IndexOptions, digest: str, n_items: int) -> None:
        self._models = load_qdrant().models
        self._url, self._collection, self._digest = options.url, options.collection, digest
        self._name = name_of(options.collection, digest)
        self._ef_search = options.ef_search
        self._n_items = n_items
        self._connections: Connections[Any] = Connections(
            partial(connect, options.url, _SECONDS), lambda client: client.close(), lost(), mends=True
        )
        self.engine = server_engine(_DEEPEST)
        self._asked(lambda client: check_whole(client, self._url, self._name, digest, n_items))

    def propose(self, queries: Floats32, count: int, allowed: Ints | None) -> Ints:
        """See `Proposer`."""
        models, wanted = self._models, None
        if allowed is not None:
            ids, others = listed(allowed, self._n_items)
            condition = models.HasIdCondition(has_id=ids)
            wanted = models.Filter(must_not=[condition]) if others else models.Filter(must=[condition])
        found: list[list[int]] = []
        for start in range(0, len(queries), PART):
            requests = [
                models.QueryRequest(
                    query=query,
                    limit=count,
                    filter=wanted,
                    params=models.SearchParams(hnsw_ef=max(self._ef_search, count)),
                    with_payload=False,
                    with_vector=False,
                )
                for query in queries[start : start + PART].tolist()
            ]
            answers = self._asked(partial(_search, name=self._name, requests=requests))
            found += [[point.id for point in answer.points] for answer in answers]
        return as_rows(found)

    def parts(self) -> dict[str, Tensor]:
        """What names the collection."""
        return digest_part(self._digest)

    def publish(self) -> None:
        """See `ServerProposer`."""
        publish_collection(self._url, self._collection, self._digest)

    def _asked(self, work: Callable[[Any], T]) -> T:
        """Do something with a client.

        Raises:
            RetrievalError, IndexServerError: as `speaking_of`.
        """
        with speaking_of(self._url, self._name):
            return self._connections.call(work)


def _search(client: Any, *, name: str, requests: list[Any]) -> list[Any]:
    return client.query_batch_points(name, requests)  # type: ignore[no-any-return]


def build(
    vectors: Tensor,
    metric: Metric,
    options: IndexOptions,
    parts: Parts | None = None,
    catalog: str = "",
) -> RemoteBackend:
    """Make the collection, or open the one that was made of these vectors.

    Args:
        vectors: (V, d).
        metric: of the scores.
        options: with `url` and `collection`.
        parts: what `CollectionProposer.parts` gave, to open an index; None builds one.
        catalog: names the encoder and the item ids.

    Raises:
        ArgumentError: an address that is not one.
        MissingDependencyError: qdrant_client is not installed.
        RetrievalError: the server refuses, or holds another index there.
        IndexServerError: it cannot be reached, or the collection is not there.
    """
    check_collection(options.collection)
    check_url(options.url)
    l2 = metric == "l2"
    return backend_on_server(
        vectors,
        metric,
        options,
        parts,
        catalog,
        put=lambda digest, own: build_collection(
            options.url, options.collection, digest, own, options, l2=l2
        ),
        proposer=lambda digest, n_items: CollectionProposer(options, digest, n_items),
    )
