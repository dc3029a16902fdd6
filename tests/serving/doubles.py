"""An engine and an event store in memory, for tests of what asks them: same protocols, no model, no disk.

The engine's answers are worked out by hand: items 1 to 20 in order of their id, 1/id their score; what a
history holds is left out. Text ids (`text_ids=True`) are "i1" to "i20".
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import Appended, Event, RawId, StoredEvent, StoreFullError
from recsys.serving.engine.asking import Answered, Ask, HistoryRead, Item, ItemInfo, ModelInfo, NewItem
from recsys.serving.http.app import create_app
from recsys.serving.http.service import Service
from recsys.serving.settings import ServeSettings

N_ITEMS = 20
LOG: dict[RawId, list[tuple[int, int]]] = {1: [(1, 100), (2, 200)], 2: [(3, 150)], 12: [(4, 160), (5, 170)]}
"""Raw user: (item's number, unix seconds) of the log."""
WIDTH = 4


class MemoryEngine:
    """An `Engine` of two categories ("odd" and "even" items) that reads the events of a `MemoryEvents`."""

    def __init__(
        self, events: "MemoryEvents | None" = None, *, text_ids: bool = False, reads_hours: bool = False
    ) -> None:
        self.events, self.text_ids, self.reads_hours = events, text_ids, reads_hours
        self.names: dict[int, RawId] = {}
        """Raw ids of items that are called otherwise."""
        self.asked: list[Ask] = []
        self.removed: set[RawId] = set()
        self.put: list[tuple[RawId, NewItem]] = []
        self.fails: RecsysError | Exception | None = None
        """What the next questions raise."""
        self.why: str | None = None
        self.age = 0.0
        self.loaded = True

    def raw(self, number: int) -> RawId:
        """The raw id of an item."""
        return self.names.get(number, f"i{number}" if self.text_ids else number)

    def _number(self, item: RawId) -> int | None:
        numbers = {self.raw(number): number for number in range(1, N_ITEMS + 1)}
        return numbers.get(item)

    def _item(self, number: int, rank: int) -> Item:
        return Item(self.raw(number), 1 / number, rank, f"Title <{number}>")

    def _user(self, user: RawId) -> RawId:
        return user if not self.text_ids else int(str(user).removeprefix("u"))

    async def recommend(self, ask: Ask) -> Answered:
        if self.fails is not None:
            raise self.fails
        if self.why is not None:
            raise RecsysError(self.why)
        self._named(ask.model)
        self.asked.append(ask)
        events: list[RawId] = []
        last = 0
        if ask.user is not None:
            events += [item for item, _ in await self.history(ask.user)]
            stored = [] if self.events is None else self.events.tail(ask.user)
            events += [each.event.item for each in stored]
            last = max((each.seq for each in stored), default=0)
        events += list(ask.history or ())
        seen = {number for number in map(self._number, events) if number is not None}
        unknown = tuple(item for item in events if self._number(item) is None)
        wanted = set(range(1, N_ITEMS + 1)) - (seen if ask.exclude_seen else set())
        if ask.allow is not None:
            wanted &= {number for number in map(self._number, ask.allow) if number}
        wanted -= {number for number in map(self._number, ask.deny or ()) if number}
        if ask.category is not None:
            odd = [name for name in ask.category if name not in ("odd", "even")]
            if odd:
                raise ArgumentError(f"category {odd[0]!r} is not one of the catalog's")
            wanted = {number for number in wanted if ("even", "odd")[number % 2] in ask.category}
        items = tuple(self._item(n, rank) for rank, n in enumerate(sorted(wanted)[: ask.k], 1))
        read = HistoryRead(len(events), len(events) - len(unknown), unknown)
        fallback = "popular" if read.encoded == 0 else None
        return Answered("default", "v1", items, read, last, fallback, batch=1, queue_ms=0.5)

    async def recommend_many(self, asks: Sequence[Ask]) -> list[Answered | RecsysError]:
        found: list[Answered | RecsysError] = []
        for ask in asks:
            try:
                found.append(await self.recommend(ask))
            except RecsysError as error:
                found.append(error)
        return found

    async def similar(self, item: RawId, k: int, model: str | None = None) -> tuple[Item, ...]:
        self._named(model)
        number = self._known(item)
        others = sorted(set(range(1, N_ITEMS + 1)) - {number}, key=lambda n: (abs(n - number), n))
        return tuple(self._item(n, rank) for rank, n in enumerate(others[:k], 1))

    async def encode(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[int]] | None = None,
        model: str | None = None,
    ) -> npt.NDArray[np.float32]:
        self._named(model)
        sums = [float(sum(self._known(item) for item in history)) for history in histories]
        return np.outer(np.asarray(sums, np.float32), np.arange(1, WIDTH + 1, dtype=np.float32))

    async def clock(self, user: RawId, model: str | None = None) -> dict[str, Any]:
        await self.history(user, model)
        hours = [{"hour": hour, "prior": 1 / 24, "shares": [hour / 24, 0.25]} for hour in range(24)]
        labels = ["odd", "even"]
        return {"user": user, "kind": "category", "events": 2, "labels": labels, "hours": hours}

    async def history(self, user: RawId, model: str | None = None) -> list[tuple[RawId, int | None]]:
        self._named(model)
        if self.events is not None and self.events.erased(user):
            return []
        if self._user(user) not in LOG:
            raise UnknownIdError(f"user {user!r} is not in the log: check the id")
        return [(self.raw(item), seconds) for item, seconds in LOG[self._user(user)]]

    async def title(self, items: Sequence[RawId], model: str | None = None) -> list[str | None]:
        return [None if (n := self._number(item)) is None else f"Title <{n}>" for item in items]

    async def search_users(self, text: str, limit: int, model: str | None = None) -> list[RawId]:
        users: list[RawId] = [f"u{user}" for user in LOG] if self.text_ids else list(LOG)
        return [user for user in users if str(user).startswith(text)][:limit]

    async def search_items(self, text: str, limit: int, model: str | None = None) -> list[Item]:
        return [
            self._item(n, n)
            for n in range(1, N_ITEMS + 1)
            if str(self.raw(n)).startswith(text) or text.lower() in f"title <{n}>"
        ][:limit]

    async def load_model(
        self, name: str, path: str | None, weight: float | None = None, shadow: float | None = None
    ) -> ModelInfo:
        if self.fails is not None:
            raise self.fails
        (info,) = self.models()
        return replace(
            info, name=name, path=path or f"/runs/{name}", weight=weight or 0.0, shadow=shadow or 0.0
        )

    async def unload_model(self, name: str) -> None:
        self._named(name)
        raise ArgumentError(f"model {name!r} is the default")

    async def roll_back(self, name: str) -> ModelInfo:
        self._named(name)
        raise ArgumentError(f"model {name!r} took nobody's place: there is nothing to go back to")

    async def item(self, item: RawId, model: str | None = None) -> ItemInfo:
        self._named(model)
        number = self._known(item)
        return ItemInfo(
            item, f"Title <{number}>", (("even", "odd")[number % 2],), 100 - number, item not in self.removed
        )

    async def put_item(self, item: RawId, new: NewItem, model: str | None = None) -> ModelInfo:
        self._named(model)
        if self.fails is not None:
            raise self.fails
        for own in new.like or ():
            self._known(own)
        self.put.append((item, new))
        return replace(self.models()[0], version="v2", n_items=N_ITEMS + 1)

    async def remove_item(self, item: RawId, model: str | None = None) -> ModelInfo:
        self._named(model)
        self._known(item)
        self.removed.add(item)
        return replace(self.models()[0], version="v2", n_items=N_ITEMS - 1)

    async def nearest(
        self, items: Sequence[RawId], among: Sequence[RawId], model: str | None = None
    ) -> list[tuple[RawId, float] | None]:
        self._named(model)
        known = {item: number for item in among if (number := self._number(item)) is not None}
        found: list[tuple[RawId, float] | None] = []
        for own in map(self._number, items):
            if own is None or not known:
                found.append(None)
            else:
                near = min(known, key=lambda item, own=own: abs(known[item] - own))  # type: ignore[misc]
                found.append((near, 1 / (1 + abs(known[near] - own))))
        return found

    def models(self) -> tuple[ModelInfo, ...]:
        if not self.loaded:
            return ()
        return (
            ModelInfo(
                name="default",
                version="v1",
                path="/runs/default",
                encoder="sasrec",
                n_items=N_ITEMS,
                n_users=len(LOG),
                width=WIDTH,
                ids_are_int=not self.text_ids,
                user_ids_are_int=not self.text_ids,
                needs_times=False,
                reads_request_time=self.reads_hours,
                loaded=1.0,
                categories=("even", "odd"),
                event_columns=("action",),
                context_columns=("device", "age"),
                details={"metrics": {"ndcg@10": 0.25}},
            ),
        )

    def ready(self, coming: int = 0) -> str | None:
        return self.why if self.loaded else "loading"

    def heartbeat_age(self) -> float:
        return self.age

    def _named(self, model: str | None) -> None:
        if model not in (None, "default"):
            raise UnknownIdError(f"model {model!r} is not in service")

    def _known(self, item: RawId) -> int:
        number = self._number(item)
        if number is None:
            raise UnknownIdError(f"item {item!r} is not in the catalog")
        return number


class MemoryEvents:
    """An `EventStore` that lasts as long as the object."""

    identity = "memory"

    def __init__(self) -> None:
        self._events: list[StoredEvent] = []
        self._ids: set[str] = set()
        self._gone: dict[RawId, int] = {}
        self._last = 0
        self.full = False

    def append(self, events: Sequence[Event]) -> Appended:
        if self.full:
            raise StoreFullError("events: no room; free some")
        accepted = 0
        for event in events:
            if event.id is not None and event.id in self._ids:
                continue
            if event.id is not None:
                self._ids.add(event.id)
            self._last += 1
            accepted += 1
            self._events.append(StoredEvent(self._last, int(time.time()), event))
        return Appended(accepted, len(events) - accepted, self._last)

    def submit(self, events: Sequence[Event]) -> "Future[Appended]":
        found: Future[Appended] = Future()
        try:
            found.set_result(self.append(events))
        except StoreFullError as error:
            found.set_exception(error)
        return found

    def tail(self, user: RawId, after: int = 0) -> list[StoredEvent]:
        found = [e for e in self._of(user) if e.seq > after]
        return sorted(found, key=lambda e: (e.event.time, e.seq))

    def newest(self, user: RawId, after: int = 0) -> tuple[int, bool] | None:
        return max((e.seq for e in self.tail(user, after)), default=0), self.erased(user, after)

    def page(self, user: RawId, limit: int, before: int | None = None) -> list[StoredEvent]:
        return [e for e in reversed(self._of(user)) if before is None or e.seq < before][:limit]

    def recent(self, limit: int, before: int | None = None) -> list[StoredEvent]:
        return [e for e in reversed(self._events) if before is None or e.seq < before][:limit]

    def read_all(self, after: int = 0, through: int | None = None) -> Iterator[list[StoredEvent]]:
        yield [e for e in self._events if e.seq > after and (through is None or e.seq <= through)]

    def last_seq(self) -> int:
        return self._last

    def reserve(self, through: int) -> bool:
        below, self._last = self._last < through, max(self._last, through)
        return below

    def erase(self, user: RawId) -> int:
        if self.full:
            raise StoreFullError("events: no room; free some")
        count = len(self._of(user))
        self._events = [e for e in self._events if not _same(e.event.user, user)]
        self._last += 1
        self._gone[user] = self._last
        return count

    def erased(self, user: RawId, through: int = 0) -> bool:
        return self._gone.get(user, 0) > through

    def erasures(self, through: int = 0) -> list[RawId]:
        return [user for user, seq in self._gone.items() if seq > through]

    def free_bytes(self) -> int | None:
        return 0 if self.full else 10**9

    def close(self) -> None:
        pass

    def _of(self, user: RawId) -> list[StoredEvent]:
        return [e for e in self._events if _same(e.event.user, user)]


def _same(a: RawId, b: RawId) -> bool:
    return type(a) is type(b) and a == b


def memory_service(*, text_ids: bool = False, reads_hours: bool = False, **settings: Any) -> Service:
    """A service of both doubles; `settings` as of `ServeSettings`."""
    events = MemoryEvents()
    given = {"models": (("default", "/runs/default", 1.0),)} | settings
    return Service(
        ServeSettings(**given), MemoryEngine(events, text_ids=text_ids, reads_hours=reads_hours), events
    )


@asynccontextmanager
async def asking(service: Service, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application of a service, without a socket."""
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client
