"""Connections whose clients do not read: what the system keeps for them, and for how long."""

import asyncio
import socket

import pytest

from recsys.serving.http.routes import docs
from recsys.serving.unread import UNREAD_MS, UNSENT_BYTES, limit_unread
from tests.serving.doubles import asking, memory_service


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
def test_connections_have_the_limits_of_the_socket_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as other:
        port = listening.getsockname()[1]
        assert limit_unread(port)
        with socket.create_connection(("127.0.0.1", port)):
            accepted = listening.accept()[0]
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == UNREAD_MS
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * UNSENT_BYTES
        assert other.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    assert not limit_unread(port)


def test_files_that_need_no_key_are_sent_to_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def get(path: str) -> tuple[int, int, int]:
        async with asking(memory_service()) as client:
            found = await client.get(path)
            return found.status_code, len(found.content), int(found.headers["content-length"])

    status, size, said = asyncio.run(get("/docs/swagger-ui-bundle.js"))
    assert (status, size) == (200, said)
    assert size > 10**6
    assert docs._sending == 0
    monkeypatch.setattr(docs, "_sending", docs._MOST)
    assert asyncio.run(get("/docs/swagger-ui-bundle.js"))[0] == 503
    assert asyncio.run(get("/openapi.json"))[0] == 200
