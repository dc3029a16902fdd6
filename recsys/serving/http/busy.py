"""No reading of what cannot be answered now: a crowded service says so from the head of a request."""

from typing import Any

from recsys.serving.engine.asking import BusyError
from recsys.serving.http.facts import facts_in
from recsys.serving.http.problems import problem_of, respond
from recsys.serving.http.service import Service

_ASKING = ("/v1/recommend", "/v1/recommend/batch")


class BusyCheck:
    """ASGI middleware: while the engine takes no requests, those with a body are answered by 503 at once.

    Reading, parsing and checking bodies on the event loop would take the interpreter from the thread that
    computes what was taken: the more is refused, the less would be answered.
    """

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 503, or let the app answer."""
        if scope["type"] == "http" and scope["method"] == "POST" and _asks(scope["path"]):
            why = self.service.engine.ready()
            if why is not None:
                facts = facts_in(scope)
                facts.refused = "busy"
                found = problem_of(BusyError(f"{why}: ask again in a second"), facts.request_id)
                await respond(found, scope["path"])(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _asks(path: str) -> bool:
    return path in _ASKING or (path.startswith("/v2/models/") and path.endswith("/infer"))
