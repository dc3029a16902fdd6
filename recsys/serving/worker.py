"""A worker: a process of its own that loads the models and answers.

`create` is called by granian in a process that `recsys.serving.process` has started. The application answers
its probes from the beginning; the models are loaded on a thread beside it.
"""

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, NoReturn

from fastapi import FastAPI

from recsys.errors import ConfigError, RecsysError
from recsys.events.by_place import open_events
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.engine.loading import use_one_thread
from recsys.serving.http.app import create_app
from recsys.serving.http.line_writer import flush_lines
from recsys.serving.http.log_lines import log, write_json_lines
from recsys.serving.http.metrics import Metrics
from recsys.serving.http.service import Service
from recsys.serving.settings import ServeSettings
from recsys.serving.state import FAILED, FOLDER, SALT, SETTINGS, State
from recsys.serving.unread import limit_unread
from recsys.serving.watching import EventWatch

if TYPE_CHECKING:
    from recsys.events.store import EventStore

_SAMPLE_SECONDS = 1.0
_SWITCH_SECONDS = 0.0001
"""How long a thread may keep the interpreter while another one waits for it.

The thread that computes lets go of it for every operation on tensors, and has to have it back after each.
Beside a busy event loop, or a model that is loaded, each of a request's many operations waits that long: by
1 ms a request of 3 ms was measured to take 17, by this 3.
"""
_END_SECONDS = 10.0
_LOOK_SECONDS = 0.05


def create() -> FastAPI:
    """The application of this process, by its environment."""
    with suppress(OSError):
        os.setpgid(0, 0)  # Ctrl+C is for the parent, which ends its workers in order
    settings = ServeSettings.from_json(os.environ[SETTINGS])
    state = State(os.environ[FOLDER])
    threading.Thread(target=_end_with_parent, args=(settings.grace,), daemon=True).start()
    write_json_lines()
    use_one_thread()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        _load_plugins(settings.plugins)
        events = None if settings.events is None else open_events(settings.events, settings.durability)
        metrics = Metrics()
        engine = ServingEngine(settings, events, metrics, state.folder)
        service = Service(settings, engine, events, started=state.started(), metrics=metrics)
        return create_app(service, salt=os.environ[SALT], lifespan=_Life(service, engine, events, state))
    except RecsysError as error:
        _give_up(state, error)


class _Life:
    """From before the first request to after the last."""

    def __init__(
        self, service: Service, engine: ServingEngine, events: "EventStore | None", state: State
    ) -> None:
        self.service, self.engine, self.events, self.state = service, engine, events, state

    @asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncIterator[None]:
        """Load, let the application answer, and let go of everything."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._drain)
        loop.add_signal_handler(signal.SIGUSR2, self._reread, app)
        loading = threading.Thread(target=self._load, name="recsys-loading", daemon=True)
        loading.start()
        if any(self.state.ready()):
            # The others answer: this one listens when it can, too, so that none of its requests is refused.
            await asyncio.to_thread(loading.join)
        looking = [asyncio.create_task(self._sample()), asyncio.create_task(self._limit_unread())]
        if self.events is not None:
            looking.append(asyncio.create_task(self._watch(EventWatch(self.service, self.events))))
        yield
        for task in looking:
            task.cancel()
        await asyncio.to_thread(self.engine.end, _END_SECONDS)
        if self.events is not None:
            await asyncio.to_thread(self.events.close)
        flush_lines(log)

    def _load(self) -> None:
        try:
            self.engine.load(self.state.step)
        except RecsysError as error:
            _give_up(self.state, error)
        except BaseException:
            log.exception("loading failed")
            _give_up(self.state, RecsysError("loading failed; the log says why"))
        # What is there by now stays: looking through all of it for cycles would stop every thread for a tenth
        # of a second. A model that goes later is in no cycle.
        gc.collect()
        gc.freeze()
        self.state.say_ready()
        while not self.state.started():
            time.sleep(_LOOK_SECONDS)
        self.service.started = True

    def _drain(self) -> None:
        self.service.draining = True

    def _reread(self, app: FastAPI) -> None:
        keys = app.state.keys
        if keys is None:
            return
        try:
            keys.reread()
        except ConfigError as error:
            log.error("keys stay as they were", extra={"error": str(error)})

    async def _sample(self) -> None:
        while True:
            free = None if self.events is None else await asyncio.to_thread(self.events.free_bytes)
            self.engine.tell_searches()
            waiting, kept = self.engine.waiting(), self.engine.answer_bytes()
            self.service.metrics.sample(waiting, self.engine.heartbeat_age(), free, kept)
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _limit_unread(self) -> None:
        while not limit_unread(self.service.settings.port):
            await asyncio.sleep(_LOOK_SECONDS)

    async def _watch(self, watch: EventWatch) -> None:
        while True:
            await asyncio.to_thread(watch.look)
            await asyncio.sleep(_SAMPLE_SECONDS)


def _give_up(state: State, error: RecsysError) -> NoReturn:
    state.fail(str(error))
    # From any thread, and at once: nothing has been taken in yet.
    flush_lines(log)
    sys.stdout.flush()
    os._exit(FAILED)


def _load_plugins(plugins: tuple[str, ...]) -> None:
    if not plugins:
        return
    from recsys.encoders.registry import load_plugin

    sys.path.insert(0, os.getcwd())
    for text in plugins:
        load_plugin(text)


def _end_with_parent(grace: float) -> None:
    """End this process when its parent has: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    flush_lines(log)
    os._exit(1)
