"""A service whose answers can be worked out by hand: the items that come after one's last, in a ring."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import RawId
from recsys.serving.engine.asking import Answered, Ask, BusyError, HistoryRead, Item, ModelInfo
from recsys.serving.http.app import create_app
from recsys.serving.http.service import Service
from recsys.serving.settings import ServeSettings

FRUIT: tuple[RawId, ...] = ("apple", "pear", "plum", "fig", "kiwi")
NUMBERS: tuple[RawId, ...] = (10, 20, 30, 40, 50)


class RingEngine:
    """After item i comes i + 1 with score 1, i + 2 with 1/2, ...; user u's history is item u alone.

    A user who is called "busy" finds the queue full, and "broken" a mistake of the engine.
    """

    def __init__(self, items: Sequence[RawId] = FRUIT, *, needs_times: bool = False):
        self.items = list(items)
        as_int = isinstance(self.items[0], int)
        self.infos = tuple(
            ModelInfo(
                name=name,
                version=version,
                path="run",
                encoder="sasrec",
                n_items=len(items),
                n_users=len(items),
                width=2,
                ids_are_int=as_int,
                user_ids_are_int=as_int,
                needs_times=needs_times,
                reads_request_time=needs_times,
                weight=weight,
                categories=("sweet",),
            )
            for name, version, weight in (("ring", "v1", 90.0), ("other", "v2", 10.0))
        )
        self.asked: list[Ask] = []
        self.loads: list[tuple[str, str | None]] = []
        self.why_not: str | None = None
        self.age = 0.0

    def models(self) -> tuple[ModelInfo, ...]:
        return self.infos

    def ready(self, coming: int = 0) -> str | None:
        return self.why_not

    def heartbeat_age(self) -> float:
        return self.age

    async def recommend_many(self, asks: Sequence[Ask]) -> list[Answered | RecsysError]:
        self.asked.extend(asks)
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Answered | RecsysError:
        if ask.user == "busy":
            return BusyError("the queue is full")
        if ask.user == "broken":
            return RecsysError("the index is damaged")
        history = list(ask.history or ([ask.user] if ask.user is not None else []))
        if ask.category is not None and set(ask.category) != {"sweet"}:
            return ArgumentError(f"category={list(ask.category)!r} holds no item")
        known = [item for item in history if item in self.items]
        info = next(info for info in self.infos if ask.model in (None, info.name))
        return Answered(
            model=info.name,
            version=info.version,
            items=self._after(
                known[-1] if known else self.items[-1], ask.k, known if ask.exclude_seen else []
            ),
            history=HistoryRead(
                len(history), len(known), tuple(item for item in history if item not in known)
            ),
            fallback=None if known else "popular",
            queue_ms=0.001,
        )

    def _after(self, item: RawId, k: int, without: Sequence[RawId]) -> tuple[Item, ...]:
        place = self.items.index(item)
        following = [(self.items[(place + step) % len(self.items)], 1 / step) for step in range(1, 6)]
        kept = [(other, score) for other, score in following if other not in without][:k]
        return tuple(Item(other, score, rank) for rank, (other, score) in enumerate(kept, 1))

    async def load_model(
        self, name: str, path: str | None, weight: float | None = None, shadow: float | None = None
    ) -> ModelInfo:
        if name == "damaged":
            raise ArgumentError("path: not a run folder under the folder of --models")
        self.loads.append((name, path))
        old = next((info for info in self.infos if info.name == name), None)
        new = replace(old or self.infos[0], name=name, version="v3", weight=old.weight if old else 0.0)
        self.infos = tuple(new if info is old else info for info in self.infos)
        self.infos += () if old else (new,)
        return new

    async def unload_model(self, name: str) -> None:
        if name == self.infos[0].name:
            raise ArgumentError(f"model {name!r} is the default")
        self.infos = tuple(info for info in self.infos if info.name != name)

    async def similar(self, item: RawId, k: int, model: str | None = None) -> tuple[Item, ...]:
        if item not in self.items:
            raise UnknownIdError(f"item {item!r} is not in the catalog")
        return self._after(item, k, [item])

    async def encode(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[int]] | None = None,
        model: str | None = None,
    ) -> npt.NDArray[np.float32]:
        ends = [sum(row) for row in times] if times is not None else [0] * len(histories)
        return np.array([[len(row), end] for row, end in zip(histories, ends, strict=True)], dtype=np.float32)


class Client:
    """Asks the application of a service, without a socket."""

    def __init__(self, engine: Any, **settings: Any) -> None:
        given = {"models": (("ring", "run", 1.0),)} | settings
        self.service = Service(ServeSettings(**given), engine, None)
        self.app = create_app(self.service)

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.send("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.send("POST", path, **options)


def fruit_service() -> Service:
    """A service of text ids."""
    return Client(RingEngine()).service


def number_service() -> Service:
    """A service of whole ids, whose histories have times."""
    return Client(RingEngine(NUMBERS, needs_times=True)).service
