"""Clients that leave before they are answered: nothing is computed for them any more."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Found = TypeVar("Found")


async def unless_left(request: Request, work: Coroutine[Any, Any, Found]) -> Found:
    """The result of some work, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: it has left; there is nobody to answer.
    """
    here = asyncio.current_task()
    assert here is not None
    leaving = asyncio.ensure_future(_left(request, here))
    try:
        return await work
    except asyncio.CancelledError:
        if not leaving.done():
            raise  # somebody else's doing
        here.uncancel()
        raise ClientDisconnect from None
    finally:
        leaving.cancel()


async def _left(request: Request, waiting: "asyncio.Task[Any]") -> None:
    # The body has been read: what comes now is the end.
    while (await request.receive())["type"] != "http.disconnect":
        pass
    waiting.cancel()
