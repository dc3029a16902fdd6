"""The engine of a worker: models in service, one compute thread, and what is kept between requests."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from recsys.answering.each import Reading, Request
from recsys.answering.user_clock import read_user_clock
from recsys.encoders.devices import choose_device
from recsys.errors import ArgumentError, RecsysError, UnknownIdError
from recsys.events.store import EventStore, RawId
from recsys.recommender import Recommender
from recsys.serving.engine import lookups
from recsys.serving.engine.answer_cache import AnswerCache
from recsys.serving.engine.asking import Answered, Ask, BusyError, Item, ItemInfo, ModelInfo, NewItem
from recsys.serving.engine.assignment import Assignment
from recsys.serving.engine.batcher import Batched, Batcher
from recsys.serving.engine.catalog import Change, adding, removing
from recsys.serving.engine.computing import AskJob, CallJob, Computing, Job, request_of
from recsys.serving.engine.exposing import exposures_beside
from recsys.serving.engine.observing import Observer, Silent
from recsys.serving.engine.served import Served
from recsys.serving.engine.swapping import Models
from recsys.serving.engine.tails import NOTHING, log_end, read_tail, reserve_log
from recsys.serving.engine.taking import Taking
from recsys.serving.ids import as_logged
from recsys.serving.settings import ServeSettings

REMEMBERED = 100
"""Requests that a new model is warmed up with before it answers."""
MOST_CHANGES = 32
"""Changes of items that may wait: each opens its run once."""
_CROWDED = 0.9
"""Share of the queue from which on a balancer is asked to send requests elsewhere."""

Found = TypeVar("Found")


class ServingEngine:
    """Answers for a worker; an `Engine`. Methods run on an event loop, computing on a thread of its own.

    Args:
        settings: of the service.
        events: store of users' events; None for a service without.
        observer: told of the work; None tells nobody.
        folder: by which the workers of this service agree on its models; None for a service of one worker.

    Call `load` before the first request, from any thread, and `end` after the last.
    """

    def __init__(
        self,
        settings: ServeSettings,
        events: EventStore | None = None,
        observer: Observer | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.settings, self._events = settings, events
        self.observer: Observer = Silent() if observer is None else observer
        self._models = Models(settings, self.observer, self._recent_requests, self._reserve, folder)
        self._recent: deque[Ask] = deque(maxlen=REMEMBERED)
        self._amending = 0
        self._counted: WeakKeyDictionary[Recommender, dict[str, int]] = WeakKeyDictionary()
        self._beside: set[asyncio.Task[None]] = set()
        self._exposures = exposures_beside(events, self.observer)
        self._aside = ThreadPoolExecutor(4, thread_name_prefix="recsys-reading")
        self._taking = Taking(events, self._read)
        for_answers = settings.cache_bytes // 4
        self._answers = AnswerCache(for_answers)
        self._batcher: Batcher[Job, Any] = Batcher(
            Computing(events, settings.cache_bytes - for_answers, self.observer),
            queue=settings.queue,
            batch=settings.batch or _batch_for(settings.device),
            weight=settings.batch_events,
            observer=self.observer,
        )

    def load(self, notify: Callable[[str], None] | None = None) -> None:
        """Load the models of the settings and warm them up; requests are taken from then on.

        Args:
            notify: told of each step in one line.

        Raises:
            RecsysError: one cannot be loaded, or has other kinds of ids than the first; none is in service.
        """
        self._models.start(notify)

    def end(self, seconds: float = 10.0) -> None:
        """Take no more requests, answer those that wait, and let go of the threads.

        Args:
            seconds: until those that wait are refused.
        """
        self._models.end()
        self._batcher.end(seconds)
        if self._exposures is not None:
            self._exposures.end(seconds)
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def recommend(self, ask: Ask) -> Answered:
        """Answer one request; see `Engine.recommend`."""
        (found,) = await self._ask([ask])
        if isinstance(found, Exception):
            raise found
        return found

    async def recommend_many(self, asks: Sequence[Ask]) -> list[Answered | RecsysError]:
        """Answer several; see `Engine.recommend_many`."""
        found = await self._ask(asks)
        for own in found:
            if isinstance(own, Exception) and not isinstance(own, RecsysError):
                raise own
        return [own for own in found if isinstance(own, Answered | RecsysError)]

    async def similar(self, item: RawId, k: int, model: str | None = None) -> tuple[Item, ...]:
        """Items near to one; see `Engine.similar`."""
        served = self._served(model)
        (row,) = served.names.answerable.encode([item]).tolist()
        if row < 0:
            raise UnknownIdError(f"item {item!r} is not in the catalog: check the id")

        def search() -> tuple[Item, ...]:
            frame = served.model.similar_items([item], k)
            ids, scores = frame["similar_item_id"].to_list(), frame["score"].to_list()
            named = frame["title"].to_list() if "title" in frame.columns else [None] * len(ids)
            rows = zip(ids, scores, named, strict=True)
            return tuple(Item(raw, score, rank, title) for rank, (raw, score, title) in enumerate(rows, 1))

        return await self._call(search)

    async def encode(
        self,
        histories: Sequence[Sequence[RawId]],
        times: Sequence[Sequence[int]] | None = None,
        model: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """States of histories; see `Engine.encode`."""
        served = self._served(model)
        if times is not None and len(times) != len(histories):
            raise ArgumentError(
                f"times are of {len(times)} histories, not of {len(histories)}: give one each"
            )
        requests = [
            Request(history=history, times=None if times is None else times[place])
            for place, history in enumerate(histories)
        ]

        def compute() -> npt.NDArray[np.float32]:
            readings = []
            for place, own in enumerate(served.answerer.read(requests)):
                if isinstance(own, RecsysError):
                    raise own
                _refuse_unknown(own, place)
                readings.append(own)
            states = served.answerer.encode(readings)
            return np.concatenate([np.zeros((0, served.model.encoder_.config.d_model), np.float32), *states])

        return await self._call(compute, weight=sum(map(len, histories)))

    async def clock(self, user: RawId, model: str | None = None) -> dict[str, Any]:
        """What a user prefers at each hour; see `Engine.clock`."""
        served = self._served(model)
        who = as_logged(user, served.names.users.is_int)
        if await self._erased(served, who):
            raise UnknownIdError(f"user {user!r} was erased: nothing of the log is read")
        return await self._call(
            lambda: read_user_clock(served.model.encoder_, served.model.store_, who).to_json()
        )

    async def history(self, user: RawId, model: str | None = None) -> list[tuple[RawId, int | None]]:
        """What the log holds of a user, nothing of one who was erased; see `Engine.history`."""
        served = self._served(model)
        who = as_logged(user, served.names.users.is_int)
        if await self._erased(served, who):
            return []
        return lookups.logged_history(served, who)

    async def title(self, items: Sequence[RawId], model: str | None = None) -> list[str | None]:
        """Titles of items; see `Engine.title`."""
        return lookups.titles(self._served(model), items)

    async def search_users(self, text: str, limit: int, model: str | None = None) -> list[RawId]:
        """Users by the beginning of their id; see `Engine.search_users`."""
        served = self._served(model)
        found = await self._read(lambda: lookups.users_like(served, text, limit))
        return [user for user in found if not await self._erased(served, user)]

    async def search_items(self, text: str, limit: int, model: str | None = None) -> list[Item]:
        """Items by a part of their name; see `Engine.search_items`."""
        served = self._served(model)
        return await self._read(lambda: lookups.items_like(served, text, limit))

    async def item(self, item: RawId, model: str | None = None) -> ItemInfo:
        """What the catalog says of an item; see `Engine.item`."""
        served = self._served(model)
        return await self._read(lambda: lookups.item_info(served, item))

    async def put_item(self, item: RawId, new: NewItem, model: str | None = None) -> ModelInfo:
        """Let an item be answered, or give one another vector; see `Engine.put_item`."""
        return await self._amended(model, adding(item, new))

    async def remove_item(self, item: RawId, model: str | None = None) -> ModelInfo:
        """Let an item be answered no more; see `Engine.remove_item`."""
        return await self._amended(model, removing(item))

    async def nearest(
        self, items: Sequence[RawId], among: Sequence[RawId], model: str | None = None
    ) -> list[tuple[RawId, float] | None]:
        """For each item which of others is nearest; see `Engine.nearest`."""
        served = self._served(model)
        return await self._read(lambda: lookups.nearest(served, items, among))

    def models(self) -> tuple[ModelInfo, ...]:
        """The models in service; see `Engine.models`."""
        assignment = self._models.assignment
        return () if assignment is None else assignment.infos

    async def load_model(
        self, name: str, path: str | None, weight: float | None = None, shadow: float | None = None
    ) -> ModelInfo:
        """Put a run in service under a name; see `Engine.load_model`."""
        served = await self._changed(lambda: self._models.load(name, path, weight, shadow))
        return self._info(served)

    async def unload_model(self, name: str) -> None:
        """Let a model go; see `Engine.unload_model`."""
        await self._changed(lambda: self._models.unload(name))

    async def roll_back(self, name: str) -> ModelInfo:
        """Put back what answered under a name before; see `Engine.roll_back`."""
        return self._info(await self._changed(lambda: self._models.roll_back(name)))

    def tell_searches(self) -> None:
        """Tell the observer of what the indexes of the models in service did since the last time."""
        for model in {place.served.model for place in self._models.assignment or ()}:
            total, before = model.decoder_.index.counters, self._counted.get(model, {})
            self._counted[model] = total
            more = {how: count - before.get(how, 0) for how, count in total.items()}
            self.observer.searched({how: count for how, count in more.items() if count})

    def ready(self, coming: int = 0) -> str | None:
        """None if requests can be taken, else why not; see `Engine.ready`."""
        if self._models.assignment is None:
            return "loading"
        waiting = self._batcher.waiting
        if waiting + coming >= _CROWDED * self._batcher.room:
            return f"{waiting} requests are waiting"
        return None

    def heartbeat_age(self) -> float:
        """Seconds since the compute thread was last known to be alive."""
        return self._batcher.heartbeat_age()

    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    def answer_bytes(self) -> int:
        """Bytes of answers that are kept."""
        return self._answers.bytes

    async def _ask(self, asks: Sequence[Ask]) -> list[Answered | Exception]:
        assignment = self._in_service()
        found: list[Answered | Exception | None] = [None] * len(asks)
        jobs: dict[int, AskJob] = {}
        for place, ask in enumerate(asks):
            try:
                job = await self._taking.job(assignment, ask)
            except RecsysError as error:
                found[place] = error
                continue
            kept = self._answers.get(job.served, job.ask, job.position)
            if kept is None:
                jobs[place] = job
            else:
                self.observer.kept_answer()
                self._sent(assignment, job, kept)
                found[place] = kept
        if jobs:
            weights = [_weight(job) for job in jobs.values()]
            seconds = self.settings.deadline
            done = await self._batcher.ask_many(list(jobs.values()), seconds=seconds, weights=weights)
            for (place, job), own in zip(jobs.items(), done, strict=True):
                found[place] = own if isinstance(own, Exception) else _told(own)
                if not isinstance(own, Exception):
                    self._answers.put(job.served, job.ask, job.position, own.result)
                    self._sent(assignment, job, own.result)
        return [own for own in found if own is not None]

    def _sent(self, assignment: Assignment, job: AskJob, answered: Answered) -> None:
        """Note what an answer is the beginning of."""
        self._recent.append(job.ask)
        if self._exposures is not None:
            self._exposures.add(job.ask, answered)
        self._ask_shadows(assignment, job, answered)

    def _ask_shadows(self, assignment: Assignment, job: AskJob, answered: Answered) -> None:
        """Ask the models that stand beside, when there is time; nobody waits for them."""
        who = job.ask.request_id if job.ask.user is None else job.ask.user
        for served in () if who is None else assignment.shadows(who, job.served):
            future = self._batcher.spare(
                AskJob(served, job.ask, None), seconds=self.settings.deadline, weight=_weight(job)
            )
            if future is not None:
                task = asyncio.ensure_future(self._compared(served, future, answered, job.ask))
                self._beside.add(task)
                task.add_done_callback(self._beside.discard)

    async def _compared(
        self, served: Served, future: "asyncio.Future[Batched[Any]]", answered: Answered, ask: Ask
    ) -> None:
        """Tell which share of the items that were sent a shadow would have sent, too."""
        with suppress(RecsysError):
            found: Answered = (await future).result
            if self._exposures is not None:
                self._exposures.add(ask, found, shadow=True)
            sent = {item.id for item in answered.items}
            if sent:
                overlap = len(sent & {item.id for item in found.items}) / len(sent)
                self.observer.shadowed(served.name, ask.k, overlap)

    async def _erased(self, served: Served, user: RawId) -> bool:
        events = self._events
        if events is None:
            return False
        through = log_end(events, served.watermark)
        return await self._read(lambda: events.erased(user, through))

    async def _changed(self, change: Callable[[], Served]) -> Served:
        """Change the models on the thread that does; a caller who leaves does not stop it half way."""
        running = asyncio.get_running_loop().run_in_executor(self._models.changing, change)
        return await asyncio.shield(running)

    async def _amended(self, model: str | None, change: Change) -> ModelInfo:
        if self._amending >= MOST_CHANGES:
            raise BusyError(f"{MOST_CHANGES} changes of items are waiting: ask again later")
        self._amending += 1
        try:
            return self._info(await self._changed(lambda: self._models.amend(model, change)))
        finally:
            self._amending -= 1

    def _info(self, served: Served) -> ModelInfo:
        place = self._in_service().named(served.name)
        return served.info(place.weight, place.shadow)

    def _recent_requests(self, served: Served) -> list[Request]:
        """Requests that came in lately, with what a model reads of their users."""
        events = self._events
        found = []
        for ask in list(self._recent):
            tail = NOTHING
            if ask.user is not None and events is not None:
                tail = read_tail(events, ask.user, served.watermark_for(ask.user))
            found.append(request_of(served, ask, tail))
        return found

    def _reserve(self, served: Served) -> None:
        if self._events is not None:
            reserve_log(self._events, served.watermark)

    async def _read(self, call: Callable[[], Found]) -> Found:
        """Look something up aside of the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, call)

    async def _call(self, call: Callable[[], Found], weight: int = 1) -> Found:
        """Compute something else than an answer."""
        done = await self._batcher.ask(CallJob(call), seconds=self.settings.deadline, weight=max(weight, 1))
        result: Found = done.result
        return result

    def _in_service(self) -> Assignment:
        assignment = self._models.assignment
        if assignment is None:
            self.observer.rejected("not_ready")
            raise BusyError("the first model is loading: ask again in a second")
        return assignment

    def _served(self, model: str | None) -> Served:
        assignment = self._in_service()
        return (assignment.places[0] if model is None else assignment.named(model)).served


def _batch_for(device: str) -> int:
    """Requests that are computed together where nobody says how many.

    On a CPU 16 of them take no longer each than 64, and whoever comes meanwhile waits for a quarter as long.
    """
    return 64 if choose_device(device).type == "cuda" else 16


def _weight(job: AskJob) -> int:
    """Events that a request encodes, as far as can be told before it is read."""
    events = len(job.ask.history or ()) + (0 if job.ask.user is None else job.served.usual_events)
    return max(1, min(events, job.served.model.encoder_.history_length))


def _told(done: Batched[Any]) -> Answered:
    answered: Answered = done.result
    return replace(answered, batch=done.batch, queue_ms=done.waited * 1000)


def _refuse_unknown(reading: Reading, place: int) -> None:
    if reading.unknown:
        raise UnknownIdError(
            f"history {place} holds {reading.unknown[0]!r}, which is not in the log: leave it out"
        )
    if reading.empty:
        raise ArgumentError(f"history {place} is empty: give at least one item")
