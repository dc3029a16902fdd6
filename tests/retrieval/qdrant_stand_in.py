"""What the `qdrant` kind asks of a Qdrant server, over HTTP, answered by the client's own local mode.

No package registry has the server. The local mode is Qdrant's reading of its own rules in Python: filters,
distances, aliases and metadata are its; a graph it has none, so that it finds the best points always, and the
parameters of a graph's search are left out.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel
from qdrant_client import QdrantClient, models


class StandIn:
    """A store of collections that outlives the server in front of it.

    Attributes:
        url: where it is served now.
        seen: method and path of each request.
        key: that every request must carry; None asks for none.
        failing: status that is answered instead; 0 for none.
    """

    def __init__(self) -> None:
        self.store = QdrantClient(":memory:")
        self.url = ""
        self.lock = threading.Lock()
        self.seen: list[str] = []
        self.key: str | None = None
        self.failing = 0

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Serve on a port of this machine; the URL."""
        outer = self

        class Handler(_Handler):
            stand_in = outer

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Result of a request, or KeyError for what is not there."""
        store = self.store
        head, *rest = path.strip("/").split("/")
        if head == "aliases":
            return store.get_aliases()
        assert head == "collections", path
        if not rest:
            return store.get_collections()
        if rest == ["aliases"]:
            steps = models.ChangeAliasesOperation.model_validate(body).actions
            return store.update_collection_aliases(steps)
        name, *action = rest
        if action == ["exists"]:
            return {"exists": store.collection_exists(name)}
        if method == "PUT" and not action:
            asked = models.CreateCollection.model_validate(body)
            return store.create_collection(
                name, vectors_config=asked.vectors, hnsw_config=asked.hnsw_config, metadata=asked.metadata
            )
        if method == "DELETE" and not action:
            return store.delete_collection(name)
        if not store.collection_exists(name):
            raise KeyError(name)
        if not action:
            return store.get_collection(name)
        if method == "PUT" and action == ["points"]:
            store.upsert(name, models.Batch.model_validate(body["batch"]))
            return {"operation_id": 0, "status": "completed"}
        if action == ["points", "count"]:
            return store.count(name)
        assert action == ["points", "query", "batch"], path
        requests = [models.QueryRequest.model_validate(one | {"params": None}) for one in body["searches"]]
        return store.query_batch_points(name, requests)


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = urlsplit(self.path).path
        own = self.stand_in
        with own.lock:
            own.seen.append(f"{self.command} {path}")
            if own.failing or (own.key is not None and self.headers.get("api-key") != own.key):
                self._send(own.failing or 401, {"status": {"error": "not now"}, "time": 0.0})
                return
            try:
                result = own.answer(self.command, path, body)
            except KeyError as error:
                self._send(404, {"status": {"error": f"Not found: {error}"}, "time": 0.0})
                return
        self._send(200, {"result": _plain(result), "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_DELETE = _handle

    def _send(self, status: int, value: dict[str, Any]) -> None:
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
