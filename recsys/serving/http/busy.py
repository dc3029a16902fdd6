"""No work on what cannot be answered now: a crowded service says so before it reads a request."""

from typing import Any

from recsys.serving.engine.asking import BusyError
from recsys.serving.http.facts import facts_in
from recsys.serving.http.problems import problem_of, respond
from recsys.serving.http.service import Service

COMING = 4
"""One of so many places of the queue is counted as taken by requests whose bodies are still to come, at most.

Those that hold a body back must not keep the others out.
"""

_ASKING = ("/v1/recommend", "/v1/recommend/batch")


class _CrowdedError(Exception):
    """The queue has filled since the request was let in."""


class BusyCheck:
    """ASGI middleware: while the engine takes no requests, those with a body are answered by 503 at once.

    Reading, parsing and checking bodies on the event loop would take the interpreter from the thread that
    computes what was taken: the more is refused, the less would be answered, and the later. So a request is
    refused by its head where that can be known, counting those that were let in and whose bodies have not
    come yet, and else as soon as its body is there, before anybody looks into it.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service
        self._coming, self._most_coming = 0, service.settings.queue // COMING

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 503, or let the app answer."""
        if scope["type"] != "http" or scope["method"] != "POST" or not _asks(scope["path"]):
            await self.app(scope, receive, send)
            return
        why = self.service.engine.ready(min(self._coming, self._most_coming))
        if why is None:
            why = await self._let_in(scope, receive, send)
        if why is not None:
            facts = facts_in(scope)
            facts.refused = "busy"
            found = problem_of(BusyError(f"{why}: ask again in a second"), facts.request_id)
            await respond(found, scope["path"])(scope, receive, send)

    async def _let_in(self, scope: Any, receive: Any, send: Any) -> str | None:
        """Let the app answer; why it could not once the body was there, or None."""
        coming = True

        def came() -> None:
            nonlocal coming
            if coming:
                coming = False
                self._coming -= 1

        async def receive_first() -> Any:
            message = await receive()
            if coming:
                came()
                why = self.service.engine.ready()
                if why is not None:
                    raise _CrowdedError(why)
            return message

        self._coming += 1
        try:
            await self.app(scope, receive_first, send)
        except _CrowdedError as error:
            return str(error)
        finally:
            came()
        return None


def _asks(path: str) -> bool:
    return path in _ASKING or (path.startswith("/v2/models/") and path.endswith("/infer"))
