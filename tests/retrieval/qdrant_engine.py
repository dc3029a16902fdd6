"""The stand-in with the engine of Qdrant's server behind its searches, from the package qdrant-edge-py."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from qdrant_client import models

from tests.retrieval.qdrant_stand_in import StandIn


class EngineStandIn(StandIn):
    """Collections of the local mode, whose vectors a graph of the engine's searches, however few they are.

    Attributes:
        indexed: vectors in the graph of the collection that was searched last.
    """

    def __init__(self) -> None:
        super().__init__()
        self._engine: Any = import_module("qdrant_edge")
        self._shards: dict[str, Any] = {}
        self._optimized: set[str] = set()
        self._folder = ""
        self.indexed = 0

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """See `StandIn`; what was stored is gone afterwards."""
        with tempfile.TemporaryDirectory(prefix="recsys-qdrant-") as self._folder:
            with super().serving(port) as url:
                yield url
            for shard in self._shards.values():
                shard.close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """See `StandIn`."""
        _, name, *action = [*path.strip("/").split("/"), ""]
        action = action[:-1]
        if action == ["points", "query", "batch"]:
            return [{"points": self._found(name, one)} for one in body["searches"]]
        if method == "DELETE" and name in self._shards:
            self._shards.pop(name).close()
            self._optimized.discard(name)
        result = super().answer(method, path, body)
        if method == "PUT" and name and not action:
            self._shards[name] = self._made(models.CreateCollection.model_validate(body))
        elif method == "PUT" and action == ["points"]:
            batch = models.Batch.model_validate(body["batch"])
            own: Any = batch.vectors
            points = [self._engine.Point(i, v, {}) for i, v in zip(batch.ids, own, strict=True)]
            self._shards[name].update(self._engine.UpdateOperation.upsert_points(points))
        return result

    def _made(self, asked: models.CreateCollection) -> Any:
        engine, vectors, graph = self._engine, asked.vectors, asked.hnsw_config
        assert isinstance(vectors, models.VectorParams)
        assert graph is not None
        by_length = vectors.distance == models.Distance.EUCLID
        distance = engine.Distance.Euclid if by_length else engine.Distance.Dot
        return engine.EdgeShard.create(
            tempfile.mkdtemp(dir=self._folder),
            engine.EdgeConfig(
                vectors=engine.EdgeVectorParams(size=vectors.size, distance=distance),
                hnsw_config=engine.HnswIndexConfig(
                    m=graph.m, ef_construct=graph.ef_construct, full_scan_threshold=1, max_indexing_threads=1
                ),
                optimizers=engine.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=1),
                max_search_threads=1,
                wal_enabled=False,
            ),
        )

    def _found(self, name: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        engine, request = self._engine, models.QueryRequest.model_validate(asked)
        shard, query, wanted = self._shards[name], request.query, None
        if name not in self._optimized:
            shard.optimize()
            self._optimized.add(name)
            self.indexed = shard.info().indexed_vectors_count
        if request.filter is not None:
            kept: dict[str, Any] = {}
            for what in ("must", "must_not"):
                for condition in getattr(request.filter, what) or []:
                    kept[what] = [engine.HasIdCondition(set(condition.has_id))]
            wanted = engine.Filter(**kept)
        assert request.params is not None
        points = shard.query(
            engine.QueryRequest(
                limit=request.limit,
                query=engine.Query.Nearest(getattr(query, "nearest", query)),
                filter=wanted,
                params=engine.SearchParams(hnsw_ef=request.params.hnsw_ef),
                with_payload=False,
                with_vector=False,
            )
        )
        return [{"id": point.id, "version": point.version, "score": point.score} for point in points]
