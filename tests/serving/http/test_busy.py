"""A crowded service refuses by the head of a request, or by its body's arrival, and reads no more of it."""

import asyncio
import json
from typing import Any

import pytest

from recsys.serving.http.busy import BusyCheck
from recsys.serving.http.facts import PLACE, begin
from recsys.serving.http.limits import BodyLimits
from tests.serving.doubles import MemoryEngine, memory_service

ROOM = 10


class Crowd(MemoryEngine):
    """An engine with so many places, of which some are taken."""

    def __init__(self, room: int = ROOM) -> None:
        super().__init__()
        self.waiting, self.room = 0, room

    def ready(self, coming: int = 0) -> str | None:
        full = self.waiting + coming >= self.room
        return f"{self.waiting} requests are waiting" if full else None


class Asking:
    """Requests to an app that takes a place for each body that it is shown."""

    def __init__(self, room: int = ROOM, queue: int = 256) -> None:
        self.engine = Crowd(room)
        service = memory_service(queue=queue)
        service.engine = self.engine
        self.read: list[bytes] = []
        self.check = BusyCheck(BodyLimits(self._app), service)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.read.append((await receive())["body"])
        self.engine.waiting += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(
        self, body: "asyncio.Future[bytes] | bytes", path: str = "/v1/recommend", length: int | None = None
    ) -> tuple[int, int, bytes]:
        """Status, how often the body was received, and what was answered."""
        received, sent = 0, []

        async def receive() -> Any:
            nonlocal received
            received += 1
            if received > 1:
                return {"type": "http.request", "body": b"", "more_body": False}
            content = body if isinstance(body, bytes) else await body
            # As granian does: it knows that a body is whole when it is asked once more.
            return {"type": "http.request", "body": content, "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": headers,
        }
        scope[PLACE] = begin(headers)
        await self.check(scope, receive, send)
        return sent[0]["status"], received, sent[1]["body"]


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/recommend/batch", "/v2/models/recommend/infer"])
def test_a_full_service_reads_nothing(path: str) -> None:
    asking = Asking()
    asking.engine.waiting = ROOM
    status, received, answer = asyncio.run(asking.ask(b"{}", path, 2))
    assert (status, received, asking.read) == (503, 0, [])
    assert b"10 requests are waiting: ask again in a second" in answer


def test_those_let_in_are_counted_until_their_body_is_there() -> None:
    asking = Asking()

    async def run() -> list[int]:
        bodies = [asyncio.get_running_loop().create_future() for _ in range(ROOM)]
        let_in = [asyncio.create_task(asking.ask(body, length=2)) for body in bodies]
        await asyncio.sleep(0)
        # Nobody waits yet, but every place is promised.
        one_more = await asking.ask(b"{}", length=2)
        assert one_more[:2] == (503, 0)
        for body in bodies:
            body.set_result(b"{}")
        found = [status for status, *_ in await asyncio.gather(*let_in)]
        asking.engine.waiting = 0
        return [*found, (await asking.ask(b"{}", length=2))[0]]

    assert asyncio.run(run()) == [200] * (ROOM + 1)


def test_a_queue_that_filled_meanwhile_refuses_before_the_body_is_parsed() -> None:
    asking = Asking()

    async def run() -> tuple[int, int, bytes]:
        body = asyncio.get_running_loop().create_future()
        let_in = asyncio.create_task(asking.ask(body))
        await asyncio.sleep(0)
        asking.engine.waiting = ROOM
        body.set_result(b"this is no JSON")
        return await let_in

    status, received, answer = asyncio.run(run())
    assert (status, received, asking.read) == (503, 1, [])
    assert json.loads(answer)["status"] == 503


@pytest.mark.parametrize("queue", [4, 64, 256])
def test_bodies_that_are_held_back_do_not_fill_the_service(queue: int) -> None:
    asking = Asking(room=queue // 2, queue=queue)

    async def run() -> int:
        never = asyncio.get_running_loop().create_future()
        held = [asyncio.create_task(asking.ask(never, length=2)) for _ in range(3 * queue)]
        await asyncio.sleep(0)
        status, *_ = await asking.ask(b"{}", length=2)
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert asking.check._coming == 0
        return status

    assert asyncio.run(run()) == 200


def test_a_body_of_known_length_is_received_in_one_message() -> None:
    asking = Asking()
    assert asyncio.run(asking.ask(b'{"user": 1}', length=11))[:2] == (200, 1)
    # Without a length its end has to be waited for.
    assert asyncio.run(asking.ask(b'{"user": 1}'))[:2] == (200, 2)
    assert asking.read == [b'{"user": 1}'] * 2
