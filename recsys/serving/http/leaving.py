"""Clients that leave before they are answered: nothing is computed for them any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Found = TypeVar("Found")

_AFTER = 0.1
"""Seconds before a client is watched: most answers are there by then, and a watch costs a task and more."""


async def unless_left(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """The result of some work, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: it has left; there is nobody to answer.
    """
    here = asyncio.current_task()
    assert here is not None
    watches: list[asyncio.Task[None]] = []
    start = asyncio.get_running_loop().call_later(
        _AFTER, lambda: watches.append(asyncio.ensure_future(_left(request, here)))
    )
    try:
        return await work
    except asyncio.CancelledError:
        if not any(watch.done() for watch in watches):
            raise  # somebody else's doing
        here.uncancel()
        raise ClientDisconnect from None
    finally:
        start.cancel()
        for watch in watches:
            watch.cancel()


async def _left(request: Request, waiting: "asyncio.Task[Any]") -> None:
    # The body has been read: what comes now is the end.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiting.cancel()
