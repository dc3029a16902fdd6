"""Clients that post numbered events and keep books: what was sent, and what was acknowledged."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Book", "Client", "Service"]

_MOST = 5
"""Events of a post."""


@dataclass(slots=True)
class Book:
    """What one user's client has sent and been told.

    Attributes:
        user: raw id.
        logged: events of the user in the run's log.
        sent: item by event's id, from before it is sent.
        known: ids that were acknowledged.
    """

    user: Any
    logged: int
    sent: dict[str, Any] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)


_NAMES = {503: "refused", 504: "late", 507: "refused"}
"""What a status that is no success is counted as."""


class Service:
    """Where to send; the port changes when the service is started again."""

    port: int


class Client:
    """A thread that posts events of one user and asks in between what the user wants next.

    Attributes:
        counts: acknowledged, sent_again, stored_already, cut_off (no answer), refused (503, 507), late (504),
            wrong_status, answers, answers_without (an acknowledged event), answers_with_more (than was sent).

    Args:
        book: of the user, which nobody else writes meanwhile.
        items: raw ids that the model knows.
        service: where to send.
        name: begins the events' ids.
        seed: of the draws.
    """

    def __init__(self, book: Book, items: Sequence[Any], service: Service, name: str, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._book, self._items, self._service, self._name = book, items, service, name
        self._rng = np.random.default_rng(seed)
        self._connection: http.client.HTTPConnection | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request in flight."""
        self._ended.set()
        self._thread.join()
        self._hang_up()

    def ask(self) -> bool:
        """Ask once, and compare the events that the answer was made of with the books; whether it came."""
        least = self._book.logged + len(self._book.known)
        answer = self._send("/v1/recommend", {"user": self._book.user, "k": 1})
        if answer is not None:
            read = answer["history"]["events"]
            self.counts["answers"] += 1
            self.counts["answers_without"] += read < least
            self.counts["answers_with_more"] += read > self._book.logged + len(self._book.sent)
        return answer is not None

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            size = int(self._rng.integers(1, _MOST + 1))
            names = [f"{self._name}-{number + each}" for each in range(size)]
            number += size
            drawn = self._rng.integers(0, len(self._items), size)
            events = {name: self._items[item] for name, item in zip(names, drawn, strict=True)}
            self._book.sent.update(events)
            answered = self._post(events)
            again = self._rng.random() < 0.5
            while not answered and again and not self._ended.is_set():
                self.counts["sent_again"] += 1
                answered = self._post(events)
            if self._rng.random() < 0.25:
                self.ask()

    def _post(self, events: dict[str, Any]) -> bool:
        body = [{"id": name, "user": self._book.user, "item": item} for name, item in events.items()]
        answer = self._send("/v1/events", {"events": body})
        if answer is None:
            return False
        if answer["accepted"] + answer["duplicates"] != len(events):
            self.counts["wrong_status"] += 1
            return False
        self._book.known.update(events)
        self.counts["acknowledged"] += len(events)
        self.counts["stored_already"] += answer["duplicates"]
        return True

    def _send(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None if there was none, or a refusal, after a short pause."""
        try:
            if self._connection is None or self._connection.port != self._service.port:
                self._hang_up()
                self._connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=15)
            self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
            answer = self._connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                found: dict[str, Any] = json.loads(text)
                return found
            self.counts[_NAMES.get(answer.status, "wrong_status")] += 1
            if answer.status not in _NAMES:
                print(f"{path}: {answer.status} {text[:500]!r}", flush=True)
        except (OSError, http.client.HTTPException):
            self._hang_up()
            self.counts["cut_off"] += 1
        time.sleep(0.05)
        return None

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
