"""Around every request: its facts, its headers, its line, and an answer whatever happens."""

import time
from typing import Any

from starlette.requests import ClientDisconnect

from recsys.serving.http.facts import PLACE, begin
from recsys.serving.http.log_lines import RequestLines, log, route_of
from recsys.serving.http.metrics import Metrics
from recsys.serving.http.problems import fault, respond
from recsys.serving.http.traffic import Traffic

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", CSP.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""Those that a response has not itself."""

_COUNTED = ("/v1/", "/v2/models/")
"""Routes whose requests the page's curves show; what the page itself asks would drown them."""


class Envelope:
    """ASGI middleware, the outermost: facts in the scope, headers on the response, a 500 for what is left."""

    def __init__(self, app: Any, metrics: Metrics, lines: RequestLines, traffic: Traffic) -> None:
        self.app, self.metrics, self.lines, self.traffic = app, metrics, lines, traffic

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the app answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        facts = scope[PLACE] = begin(scope["headers"])
        self.metrics.in_flight.inc()
        status = 0

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])
                names = {name for name, _ in headers}
                headers += [own for own in _HEADERS if own[0] not in names]
                headers.append((b"x-request-id", facts.request_id.encode("ascii")))
                message["headers"] = headers
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except ClientDisconnect:
            pass  # nobody is there to answer
        except Exception as error:  # whatever it is, the client gets an answer and the log the reason
            facts.error = f"{type(error).__name__}: {error}"
            log.exception("fault", extra={"request_id": facts.request_id})
            if status == 0:
                await respond(fault(facts.request_id), scope["path"])(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - facts.began
            self.metrics.in_flight.dec()
            route, method = route_of(scope), str(scope["method"])
            self.metrics.answered(route, method, status, seconds)
            self.metrics.refused(facts)
            self.lines.write(facts, route, method, status, seconds)
            if route.startswith(_COUNTED):
                self.traffic.answered(seconds, status or 500, facts.batch, facts.cached)
