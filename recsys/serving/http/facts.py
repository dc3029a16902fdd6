"""What is known of a request while it is answered, for its line, its metrics and its problems."""

import random
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from recsys.events.store import RawId
from recsys.serving.engine.asking import Answered
from recsys.serving.http.keys import Key

PLACE = "recsys.facts"
"""Name under which a request's scope holds its facts."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(slots=True, eq=False)
class Facts:
    """Facts of one request.

    Attributes:
        request_id: of the client where it names one of plain characters, else of its trace, else drawn.
        trace: (trace id, parent id) of a W3C traceparent.
        headers: by lower-case name; of several of a name the first.
        key: whose it is; None without keys.
        error: what went wrong, for the log; never sent.
        refused: why it was refused, in a word.
    """

    request_id: str
    trace: tuple[str, str] | None = None
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    key: Key | None = None
    user: RawId | None = None
    k: int | None = None
    model: str | None = None
    version: str | None = None
    batch: int | None = None
    queue_ms: float | None = None
    fallback: str | None = None
    cached: bool | None = None
    error: str | None = None
    refused: str | None = None

    def header(self, name: bytes) -> str | None:
        """A header by its lower-case name; None where there is none."""
        found = self.headers.get(name)
        return None if found is None else found.decode("latin-1")

    def answered(self, answer: Answered, k: int, user: RawId | None) -> None:
        """Note an answer."""
        self.user, self.k = user, k
        self.model, self.version = answer.model, answer.version
        if answer.batch:
            self.batch, self.queue_ms = answer.batch, answer.queue_ms
        self.fallback, self.cached = answer.fallback, answer.cached


def begin(headers: Iterable[tuple[bytes, bytes]]) -> Facts:
    """Facts of a request that has just come in, from its headers; what is odd in them is not taken over."""
    held: dict[bytes, bytes] = {}
    given = trace = None
    for name, value in headers:
        held.setdefault(name, value)
        if name == b"x-request-id":
            given = _REQUEST_ID.fullmatch(value.decode("latin-1"))
        elif name == b"traceparent":
            trace = _TRACE.fullmatch(value.decode("latin-1"))
    ids = None
    if trace is not None and trace[1].strip("0") and trace[2].strip("0"):
        ids = (trace[1], trace[2])
    if given:
        return Facts(given[0], ids, held)
    # A name and no secret: the system's random bytes would cost a change of threads.
    return Facts(ids[0] if ids else f"{random.getrandbits(128):032x}", ids, held)


def facts_of(request: Request) -> Facts:
    """Facts of a request."""
    return facts_in(request.scope)


def facts_in(scope: Mapping[str, Any]) -> Facts:
    """Facts of a request by its scope."""
    found = scope[PLACE]
    assert isinstance(found, Facts)
    return found
