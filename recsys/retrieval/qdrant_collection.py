"""An index as a collection of Qdrant: made beside the others, then named by one change of an alias.

    items_0123456789ab    the collection: a point for each row, its number the row's
    items                 an alias of the one that was saved last

A collection is whole if it holds as many points as it says. What a killed build leaves is removed when the
next index of the name is published.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.errors import IndexServerError, RetrievalError
from recsys.retrieval.metric import Floats32
from recsys.retrieval.options import IndexOptions
from recsys.retrieval.qdrant_library import connect, gone, load_qdrant, speaking_of
from recsys.retrieval.remote import FORMAT, facts_of, is_ours, mismatch, name_of

_POINTS = 1000
"""Points of one request."""
_SECONDS = 120
"""That the server may take for one request of a build."""
_PATIENCE = 3600.0
"""Seconds that it may take to build the graph."""


def build_collection(
    url: str, collection: str, digest: str, vectors: Floats32, options: IndexOptions, *, l2: bool
) -> None:
    """Make the collection unless it is there.

    Args:
        url: of the server.
        collection: the alias that it will have.
        digest: of the index.
        vectors: (V, d).
        options: of the graph.
        l2: whether distances are Euclidean, rather than inner products.

    Raises:
        RetrievalError: the server refuses, or the alias is the name of a collection.
        IndexServerError: it cannot be reached.
    """
    name = name_of(collection, digest)
    with _client(url, name) as client:
        there = _names(client)
        if collection in there:
            raise RetrievalError(
                f"{url}: {collection} is a collection and no item index's alias; choose another collection="
            )
        if name not in there or not _is_whole(client, name, digest, len(vectors)):
            _make(client, url, name, digest, vectors, options, l2)


def publish_collection(url: str, collection: str, digest: str) -> None:
    """Let the alias mean the collection, in one step, and remove all but it and the one that it meant before.

    Args:
        url: of the server.
        collection: the alias.
        digest: of the index.

    Raises:
        IndexServerError: the server cannot be reached, or the collection is not there.
    """
    models, name = load_qdrant().models, name_of(collection, digest)
    with _client(url, name) as client:
        meant = {own.alias_name: own.collection_name for own in client.get_aliases().aliases}
        before = meant.get(collection)
        if before == name:
            return
        steps: list[Any] = []
        if before is not None:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=collection)))
        made = models.CreateAlias(collection_name=name, alias_name=collection)
        client.update_collection_aliases([*steps, models.CreateAliasOperation(create_alias=made)])
        for other in sorted(_names(client) - {name, before}):
            if is_ours(other, collection) and _metadata(client, other).get("format") == FORMAT:
                client.delete_collection(other)


@contextmanager
def _client(url: str, name: str) -> Iterator[Any]:
    client = connect(url, _SECONDS)
    try:
        with speaking_of(url, name):
            yield client
    finally:
        client.close()


def _names(client: Any) -> set[str]:
    return {own.name for own in client.get_collections().collections}


def check_whole(client: Any, url: str, name: str, digest: str, n_items: int) -> None:
    """Refuse a collection that is not there, not whole or of another index.

    Raises:
        IndexServerError: it is not there.
        RetrievalError: it is another one.
    """
    if not client.collection_exists(name):
        raise gone(url, name)
    found = _metadata(client, name).get("digest")
    if found != digest:
        raise mismatch(f"{url}, collection {name}", found, digest)
    count = client.count(name, exact=True).count
    if count != n_items:
        raise RetrievalError(
            f"{url}, collection {name}: holds {count:,} of {n_items:,} vectors; build the index again"
        )


def _metadata(client: Any, name: str) -> dict[str, Any]:
    return dict(client.get_collection(name).config.metadata or {})


def _is_whole(client: Any, name: str, digest: str, n_items: int) -> bool:
    same = _metadata(client, name).get("digest") == digest
    return same and client.count(name, exact=True).count == n_items


def _make(
    client: Any, url: str, name: str, digest: str, vectors: Floats32, options: IndexOptions, l2: bool
) -> None:
    models = load_qdrant().models
    client.delete_collection(name)
    client.create_collection(
        name,
        vectors_config=models.VectorParams(
            size=vectors.shape[1], distance=models.Distance.EUCLID if l2 else models.Distance.DOT
        ),
        hnsw_config=models.HnswConfigDiff(m=options.hnsw_m, ef_construct=options.ef_construction),
        metadata=facts_of(digest, vectors),
    )
    if _metadata(client, name).get("digest") != digest:
        client.delete_collection(name)
        raise RetrievalError(f"{url}: this Qdrant keeps no metadata of collections; update it to 1.16")
    for start in range(0, len(vectors), _POINTS):
        part = vectors[start : start + _POINTS]
        points = models.Batch(ids=list(range(start, start + len(part))), vectors=part.tolist())
        client.upsert(name, points, wait=True)
    if client.count(name, exact=True).count != len(vectors):
        raise IndexServerError(f"{url}: not all vectors arrived, as somebody else builds {name}; repeat")
    until = time.monotonic() + _PATIENCE
    while client.get_collection(name).status == models.CollectionStatus.YELLOW:
        if time.monotonic() > until:
            raise IndexServerError(f"{url}: {name} is not ready after {_PATIENCE:.0f} s; see to the server")
        time.sleep(0.1)
