"""One JSON line a request. Keys and bodies are never in it; a user is hashed unless users may be named."""

import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from recsys.events.store import RawId
from recsys.serving.http.facts import Facts
from recsys.serving.http.line_writer import LineWriter

LOGGER = "recsys.serving"
ROW = "recsys_row"
"""Name under which the record of a request's line holds what is in it."""

_QUIET = frozenset(("/livez", "/readyz", "/startupz", "/v2/health/live", "/v2/health/ready"))
"""Routes that are asked every few seconds: a line only where the answer is not 200."""
_CLIENT_LEFT = 499

_ENCODE = json.JSONEncoder(default=str).encode

log = logging.getLogger(LOGGER)


class RequestLines:
    """Writes a line for each request.

    Args:
        salt: what users' hashes are keyed with; workers of one service share it.
        log_users: whether users are named.
    """

    def __init__(self, salt: str, *, log_users: bool = False) -> None:
        self._salt, self._log_users = salt.encode()[:64], log_users

    def write(self, facts: Facts, route: str, method: str, status: int, seconds: float) -> None:
        """Write the line of a request that was answered, or whose client has left (status 0)."""
        if route in _QUIET and status == 200:
            return
        row: dict[str, Any] = {
            "request_id": facts.request_id,
            "method": method[:16],
            "route": route,
            "status": status or _CLIENT_LEFT,
            "ms": round(1000 * seconds, 3),
        }
        if facts.trace is not None:
            row["trace_id"], row["parent_id"] = facts.trace
        more: dict[str, Any] = {
            "key": None if facts.key is None else facts.key.name,
            "user": None if facts.user is None else self._user(facts.user),
            "k": facts.k,
            "model": facts.model,
            "version": facts.version,
            "batch": facts.batch,
            "queue_ms": None if facts.queue_ms is None else round(facts.queue_ms, 3),
            "cached": facts.cached,
            "fallback": facts.fallback,
            "refused": facts.refused,
            "error": facts.error,
        }
        row |= {name: value for name, value in more.items() if value is not None}
        level = logging.INFO
        if status >= 500:
            # A probe that is told "not yet" is what probes are for.
            level = logging.WARNING if route in _QUIET else logging.ERROR
        if log.isEnabledFor(level):
            # Where in the code it was made is of no interest, and takes longest to find out.
            log.handle(log.makeRecord(log.name, level, "", 0, "request", (), None, extra={ROW: row}))

    def _user(self, user: RawId) -> RawId:
        if self._log_users:
            return user
        # The kind is part of it: 1 and "1" are two users.
        text = f"{type(user).__name__} {user}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, key=self._salt, digest_size=8).hexdigest()


class _Lines(JsonFormatter):
    def format(self, record: logging.LogRecord) -> str:
        row = getattr(record, ROW, None)
        return super().format(record) if row is None else _ENCODE(_first(record) | row)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        ordered = _first(record) | {name: value for name, value in log_data.items() if name != "taskName"}
        log_data.clear()
        log_data.update(ordered)


def _first(record: logging.LogRecord) -> dict[str, Any]:
    """What every line begins with."""
    return {
        "ts": round(record.created, 6),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
    }


def write_json_lines(stream: TextIO | None = None) -> None:
    """Let the service's log go to a stream, standard output for None, as JSON lines."""
    for before in log.handlers:
        before.close()
    handler = LineWriter(sys.stdout if stream is None else stream)
    handler.setFormatter(_Lines("%(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
    # A log that cannot be written is no reason to stop answering, nor to fill standard error.
    logging.raiseExceptions = False


def route_of(scope: Mapping[str, Any]) -> str:
    """The route that answered, as its path is declared: no ids of users, however many there are."""
    route = scope.get("route")
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    return str(path) if path else "unmatched"
