"""The `qdrant` kind over HTTP, against the client's local mode behind a socket."""

import json
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from recsys.errors import IndexServerError, MissingDependencyError, RetrievalError
from recsys.retrieval.backends import check_kind
from recsys.retrieval.item_index import ItemIndex

if TYPE_CHECKING:
    from tests.retrieval.qdrant_stand_in import StandIn
else:
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    from tests.retrieval.qdrant_stand_in import StandIn

VECTORS = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)


@pytest.fixture
def own() -> StandIn:
    return StandIn()


@pytest.fixture
def url(own: StandIn) -> Iterator[str]:
    with own.serving() as address:
        yield address


def built(url: str, vectors: Any = VECTORS, collection: str = "items") -> ItemIndex:
    return ItemIndex.build(
        vectors, kind="qdrant", fingerprint="f", options={"url": url, "collection": collection}
    )


def saved(url: str, folder: Path, vectors: Any = VECTORS) -> ItemIndex:
    index = built(url, vectors)
    index.save(folder)
    return index


def names(own: StandIn) -> set[str]:
    return {each.name for each in own.store.get_collections().collections}


def test_a_collection_says_what_it_is_and_an_alias_names_the_newest(
    own: StandIn, url: str, tmp_path: Path
) -> None:
    saved(url, tmp_path / "index")
    (name,) = names(own)
    info = own.store.get_collection(name)
    metadata = dict(info.config.metadata or {})
    assert metadata.pop("digest")[:12] == name.removeprefix("items_")
    assert metadata == {"format": "recsys item index", "version": 1, "items": 50}
    saved(url, tmp_path / "index", 2 * VECTORS)
    aliases = own.store.get_aliases().aliases
    assert [each.alias_name for each in aliases] == ["items"]
    assert aliases[0].collection_name != name
    found, _ = own.store.scroll("items", limit=60, with_vectors=True)
    kept: Any = [point.vector for point in found]
    np.testing.assert_allclose(kept, 2 * VECTORS, rtol=1e-6)


def test_leftovers_of_a_killed_build_and_only_those_are_removed(
    own: StandIn, url: str, tmp_path: Path
) -> None:
    from qdrant_client import models

    size = models.VectorParams(size=6, distance=models.Distance.DOT)
    ours = {"format": "recsys item index", "digest": "x"}
    own.store.create_collection("items_0123456789ab", vectors_config=size, metadata=ours)
    own.store.create_collection("items_ba9876543210", vectors_config=size)
    own.store.create_collection("items_2_0123456789ab", vectors_config=size, metadata=ours)
    saved(url, tmp_path / "index")
    assert "items_0123456789ab" not in names(own)
    assert {"items_ba9876543210", "items_2_0123456789ab"} < names(own)
    own.store.create_collection("taken", vectors_config=size)
    with pytest.raises(RetrievalError, match="taken is a collection and no item index's alias; choose"):
        built(url, collection="taken")


def test_half_a_collection_is_made_again_and_not_opened(own: StandIn, url: str, tmp_path: Path) -> None:
    index = built(url)
    index.save(tmp_path / "index")
    (name,) = names(own)
    own.store.delete(name, [3])
    with pytest.raises(RetrievalError, match="holds 49 of 50 vectors; build the index again"):
        ItemIndex.load(tmp_path / "index")
    built(url)
    ItemIndex.load(tmp_path / "index")


def test_a_collection_of_another_index_is_refused(own: StandIn, url: str, tmp_path: Path) -> None:
    built(url).save(tmp_path / "index")
    (name,) = names(own)
    for metadata, words in (
        ({"digest": "ab" * 32}, "fingerprint abababababab"),
        ({"digest": ""}, "no fingerprint"),
    ):
        own.store.update_collection(name, metadata=metadata)
        with pytest.raises(RetrievalError, match=f"holds another index than this run's .{words}"):
            ItemIndex.load(tmp_path / "index")


def test_a_server_that_is_away_is_one_line_and_found_again(own: StandIn) -> None:
    with own.serving() as url:
        index = built(url)
        wanted = index.search(VECTORS[:3], 4).ids.tolist()
    port = int(url.rpartition(":")[2])
    for asked in (lambda: index.search(VECTORS[:3], 4), lambda: built(url, 2 * VECTORS)):
        with pytest.raises(IndexServerError) as caught:
            asked()
        assert str(caught.value).startswith(f"{url}: the index server cannot be reached (")
        assert "\n" not in str(caught.value)
    # What is scanned here needs no server.
    assert index.search(VECTORS[:3], 4, allow=[1, 2]).ids.max() == 2
    with own.serving(port):
        assert index.search(VECTORS[:3], 4).ids.tolist() == wanted


def test_a_server_that_fails_or_hangs_is_said_to(
    own: StandIn, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(url)
    own.failing = 500
    with pytest.raises(IndexServerError, match="answers 500 .not now.; see to the server"):
        index.search(VECTORS[:1], 3)
    own.failing = 0
    index.search(VECTORS[:1], 3)
    monkeypatch.setattr("recsys.retrieval.qdrant._SECONDS", 1)
    slow = built(url)
    with own.lock, pytest.raises(IndexServerError, match="cannot be reached .timed out"):
        slow.search(VECTORS[:1], 3)


def test_the_key_comes_from_the_environment(own: StandIn, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own.key = "correct"
    with pytest.raises(IndexServerError, match="lets nobody in without its key; set .* QDRANT_API_KEY"):
        built(url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a key without TLS
        monkeypatch.setenv("QDRANT_API_KEY", "wrong")
        with pytest.raises(IndexServerError, match="QDRANT_API_KEY") as caught:
            built(url)
        assert "wrong" not in str(caught.value)
        monkeypatch.setenv("QDRANT_API_KEY", "correct")
        assert built(url).search(VECTORS[:1], 3).ids.min() >= 0


def test_a_server_that_speaks_something_else_is_one_line() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RetrievalError, match="what answers there is no Qdrant server") as caught:
            built(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
        assert "\n" not in str(caught.value)


def test_without_the_client_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qdrant_client", None)
    for refused in (lambda: built("http://h"), lambda: check_kind("qdrant")):
        with pytest.raises(MissingDependencyError, match=r"pip install 'recsys-engine\[qdrant\]'"):
            refused()


def test_the_address_lies_in_the_manifest_and_nothing_else_of_it(url: str, tmp_path: Path) -> None:
    built(url).save(tmp_path / "index")
    options = json.loads((tmp_path / "index" / "manifest.json").read_text())["options"]
    assert (options["url"], options["collection"]) == (url, "items")
    assert "dsn" not in options
