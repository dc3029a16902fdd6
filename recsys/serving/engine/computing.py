"""What the compute thread does with a batch: read, encode what is not kept, search, and name."""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.answering.each import Answer, Reading, Request
from recsys.errors import RecsysError
from recsys.events.store import EventStore
from recsys.serving.engine.asking import Answered, Ask, HistoryRead, Item
from recsys.serving.engine.observing import Observer
from recsys.serving.engine.served import Served
from recsys.serving.engine.tails import NOTHING, Position, Tail, read_tail
from recsys.serving.engine.vector_cache import VectorCache


@dataclass(frozen=True, slots=True, eq=False)
class AskJob:
    """A request of a model.

    Attributes:
        served: the model.
        ask: its ids in the log's kind.
        tail: what the store holds of the user; None is read when the request is taken up.
        position: of the tail as the request came in; None where that is not known.
    """

    served: Served
    ask: Ask
    tail: Tail | None
    position: Position | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CallJob:
    """Something else that computes."""

    call: Callable[[], Any]


Job = AskJob | CallJob


class Computing:
    """Computes batches; called on one thread.

    Args:
        events: of users; None for a service without.
        cache_bytes: most bytes of vectors kept.
        observer: told of stages, the cache and what was unknown.
    """

    def __init__(self, events: EventStore | None, cache_bytes: int, observer: Observer) -> None:
        self._events, self._observer = events, observer
        self._cache = VectorCache(cache_bytes)

    def __call__(self, jobs: Sequence[Job]) -> list[Any]:
        """Results of jobs, or why there is none, each in its place."""
        found: list[Any] = [None] * len(jobs)
        groups: dict[Served, list[int]] = {}
        for place, job in enumerate(jobs):
            if isinstance(job, AskJob):
                groups.setdefault(job.served, []).append(place)
            else:
                found[place] = _called(job.call)
        for served, places in groups.items():
            own = [job for job in (jobs[place] for place in places) if isinstance(job, AskJob)]
            for place, answer in zip(places, self._answers(served, own), strict=True):
                found[place] = answer
        return found

    def _answers(self, served: Served, jobs: list[AskJob]) -> list[Answered | Exception]:
        found: list[Any] = [None] * len(jobs)
        with self._stage("ids"):
            tails = [self._tail(job) for job in jobs]
            asked = {
                p: request_of(served, jobs[p].ask, tail)
                for p, tail in enumerate(tails)
                if isinstance(tail, Tail)
            }
            read = dict(zip(asked, served.answerer.read(list(asked.values())), strict=True))
            places = [place for place, own in read.items() if isinstance(own, Reading)]
            readings = [_without_added(served, own) for own in read.values() if isinstance(own, Reading)]
        for place, tail in enumerate(tails):
            # An answer takes the place of a reading.
            found[place] = read[place] if isinstance(tail, Tail) else tail
        vectors, kept = self._vectors(served, readings)
        with self._stage("search"):
            answers = served.answerer.search(readings, vectors)
        with self._stage("names"):
            for place, answer, was_kept in zip(places, answers, kept, strict=True):
                found[place] = self._answered(served, answer, tails[place], was_kept)
        return found

    def _tail(self, job: AskJob) -> "Tail | RecsysError":
        if job.tail is not None:
            return job.tail
        if job.ask.user is None or self._events is None:
            return NOTHING
        try:
            return read_tail(self._events, job.ask.user, job.served.watermark_for(job.ask.user))
        except RecsysError as error:
            return error

    def _vectors(self, served: Served, readings: list[Reading]) -> tuple[list[Any], list[bool]]:
        """Query vectors of each request, and whether they were kept from before."""
        keys = [(served.version, own.state_key()) for own in readings]
        vectors: list[Any] = [self._cache.get(key) for key in keys]
        kept = [own is not None for own in vectors]
        # A history that several of a batch share is encoded once.
        missing: dict[Any, int] = {}
        for place, key in enumerate(keys):
            if vectors[place] is None:
                missing.setdefault(key, place)
        before = self._cache.evictions
        with self._stage("encode"):
            made = served.answerer.encode([readings[place] for place in missing.values()])
        fresh = dict(zip(missing, made, strict=True))
        for key, own in fresh.items():
            if len(own):
                self._cache.put(key, own)
        for place, key in enumerate(keys):
            if vectors[place] is None:
                vectors[place] = fresh[key]
        hits = sum(kept)
        evicted = self._cache.evictions - before
        self._observer.cache(hits, len(readings) - hits, evicted, self._cache.bytes)
        return vectors, kept

    def _answered(self, served: Served, answer: Answer, tail: "Tail | RecsysError", kept: bool) -> Answered:
        reading = answer.reading
        assert isinstance(tail, Tail)
        if reading.unknown:
            self._observer.unknown_items(len(reading.unknown))
        if answer.popular:
            self._observer.fallback("popular")
        titles = answer.titles or [None] * len(answer.ids)
        scores = answer.scores.tolist()
        return Answered(
            model=served.name,
            version=served.version,
            items=tuple(
                Item(raw, score, rank, title)
                for rank, (raw, score, title) in enumerate(zip(answer.ids, scores, titles, strict=True), 1)
            ),
            history=HistoryRead(reading.length, reading.encoded, reading.unknown),
            last_seq=tail.last_seq,
            fallback="popular" if answer.popular else None,
            cached=kept,
        )

    @contextmanager
    def _stage(self, name: str) -> Any:
        start = time.perf_counter()
        yield
        self._observer.stage(name, time.perf_counter() - start)


def request_of(served: Served, ask: Ask, tail: Tail) -> Request:
    """A request as the library takes it; columns that another model in service reads are passed over."""
    events, known = served.event_columns, served.context_columns
    columns = {name: values for name, values in (ask.columns or {}).items() if name in events}
    context = {name: value for name, value in (ask.context or {}).items() if name in known}
    return Request(
        user=ask.user,
        log=not tail.erased,
        since=tail.since,
        since_columns=tail.columns if events else (),
        history=() if ask.history is None else ask.history,
        times=ask.times,
        columns=columns or None,
        context=context or None,
        at=ask.at,
        time_zone=ask.time_zone,
        k=ask.k,
        exclude_seen=ask.exclude_seen,
        allow=ask.allow,
        deny=ask.deny,
        category=ask.category,
        interests=ask.interests,
    )


def _without_added(served: Served, reading: Reading) -> Reading:
    """The same, with items that were added without features denied if the history holds them.

    An encoder has no vector for them, so they are unknown to it; they are in the catalog all the same.
    """
    if not reading.unknown or not reading.exclude_seen:
        return reading
    rows = served.names.answerable.encode(reading.unknown)
    added = rows[rows >= 0]
    if not len(added):
        return reading
    deny = added if reading.deny is None else np.union1d(reading.deny, added)
    return replace(reading, deny=deny)


def _called(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error
