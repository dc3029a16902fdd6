"""What of a request is read at all: size, time, media type, and JSON that is JSON."""

import asyncio
from typing import Any

from pydantic_core import from_json

from recsys.serving.http.facts import facts_in
from recsys.serving.http.problems import problem, respond

BODY_BYTES = 2**20
LARGE_BODY_BYTES = 4 * 2**20
BODY_SECONDS = 10.0
JSON = "recsys.json"
"""Name under which a request's scope holds what its JSON body says."""
HEADER_BYTES = 16 * 1024
TARGET_BYTES = 8 * 1024

_LARGE = frozenset(("/v1/events", "/v1/recommend/batch"))
_FORMS = ("/ui",)
_NO_BODY = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))


class _Refused(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class BodyLimits:
    """ASGI middleware: reads the body whole, within its limits, before the app sees the request."""

    def __init__(self, app: Any, seconds: float = BODY_SECONDS) -> None:
        """Limit what reaches an app; `seconds` is the time that a body may take to come in."""
        self.app, self.seconds = app, seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 400, 408, 413, 414, 415 or 431, or let the app answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except _Refused as refused:
            found = problem(refused.status, refused.detail, request_id=facts_in(scope).request_id)
            # What is left of the body is not read: the connection is of no use any more.
            close = {"Connection": "close"} if refused.status in (400, 408, 413) else None
            await respond(found, scope["path"], close)(scope, receive, send)
            return
        if body is None:
            return  # the client left
        sent = False

        async def replay() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    async def _body(self, scope: Any, receive: Any) -> bytes | None:
        """The body, None if the client left while sending it.

        Raises:
            _Refused: the request is not read.
        """
        header, path = facts_in(scope).header, str(scope["path"])
        if sum([len(name) + len(value) for name, value in scope["headers"]]) > HEADER_BYTES:
            raise _Refused(431, f"headers take more than {HEADER_BYTES} bytes")
        if len(scope.get("raw_path") or path) + len(scope["query_string"]) > TARGET_BYTES:
            raise _Refused(414, f"the path and query take more than {TARGET_BYTES} bytes")
        encoding = header(b"content-encoding")
        if encoding is not None and encoding.lower() != "identity":
            raise _Refused(415, "Content-Encoding is not accepted: send the body as it is")
        most = LARGE_BODY_BYTES if path in _LARGE or path.startswith("/v2/") else BODY_BYTES
        length, coding = header(b"content-length"), header(b"transfer-encoding")
        if length is not None and coding is not None:
            raise _Refused(400, "send Content-Length or Transfer-Encoding, not both")
        if length is not None and (not length.isascii() or not length.isdigit()):
            raise _Refused(400, "Content-Length is not a number")
        expected = None if length is None else int(length.lstrip("0")[:20] or 0)
        if expected is not None and expected > most:
            raise _Refused(413, f"the body takes more than {most} bytes")
        if scope["method"] in _NO_BODY and length in (None, "0") and coding is None:
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        raise _Refused(413, f"the body takes more than {most} bytes")
                    parts.append(part)
                    # The end of a body of known length would be one message more, and a change of threads.
                    if not message.get("more_body", False) or (expected is not None and size >= expected):
                        break
        except TimeoutError:
            raise _Refused(408, f"the body took more than {self.seconds:g} seconds") from None
        body = b"".join(parts)
        if body and path.startswith("/v1/"):
            scope[JSON] = _json(header(b"content-type") or "", body)
        return body


def _json(content_type: str, body: bytes) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _Refused(415, "send the body as JSON, with Content-Type: application/json")
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise _Refused(400, f"the body is not JSON: {error}") from None
