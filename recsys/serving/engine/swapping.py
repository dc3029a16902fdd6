"""Models that take the place of others while requests are answered.

A model is loaded, checked and warmed up beside the one that answers; then one assignment puts it in place.
Batches that are being computed end with the model that they began with. Whatever goes wrong before the
assignment changes nothing.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from recsys.answering.each import Request
from recsys.errors import ArgumentError, RecsysError
from recsys.serving.engine.agreeing import Agreed, Agreeing, Agreement
from recsys.serving.engine.asking import BusyError
from recsys.serving.engine.assignment import Assignment, Place
from recsys.serving.engine.catalog import Change, amended
from recsys.serving.engine.loading import load_served, refuse_other_ids, warm_up
from recsys.serving.engine.observing import Observer
from recsys.serving.engine.runs import run_under
from recsys.serving.engine.served import Served, same_run
from recsys.serving.settings import ServeSettings

FOLLOW_SECONDS = 1.0
"""Seconds between two looks at what the other workers agreed on."""

_log = logging.getLogger("recsys.serving.models")


class Models:
    """The models of a worker: loaded at the start, and changed by one thread at a time.

    Args:
        settings: of the service.
        observer: told of every load.
        recent: requests that came in lately, of the log and the events that a model reads.
        check: called with every model before it answers; what it raises keeps the model out.
        folder: by which the workers of this service agree; None for a service of one.
    """

    def __init__(
        self,
        settings: ServeSettings,
        observer: Observer,
        recent: Callable[[Served], Sequence[Request]],
        check: Callable[[Served], None],
        folder: str | Path | None = None,
    ) -> None:
        self._settings, self._observer = settings, observer
        self._recent, self._check = recent, check
        self._agreeing = None if folder is None else Agreeing(folder, settings.kept)
        self._generation = 0
        self.assignment: Assignment | None = None
        """What is in service; read once for a request."""
        self.changing = ThreadPoolExecutor(1, thread_name_prefix="recsys-models")
        """The thread on which `load`, `roll_back` and `follow` run."""
        self._ended = threading.Event()

    def start(self, notify: Callable[[str], None] | None = None) -> None:
        """Load what the settings name, or what the other workers agreed on since.

        Args:
            notify: told of each step in one line.

        Raises:
            RecsysError: one cannot be loaded, or has other kinds of ids than the first; none is in service.
        """
        agreed = Agreement() if self._agreeing is None else self._agreeing.read()
        wanted = agreed.models or self._of_settings()
        places: list[Place] = []
        for own in wanted:
            if notify is not None:
                notify(f"loading {own.name}: {own.path}")
            served = load_served(own.name, own.path, device=self._settings.device)
            if places:
                refuse_other_ids(served, places[0].served)
            self._check(served)
            warm_up(served, notify=notify)
            places.append(Place(served, own.weight, own.shadow))
        self.assignment, self._generation = Assignment(tuple(places)), agreed.generation
        for place in places:
            self._observer.loaded(place.served.name, place.served.version, "ok")
        if self._agreeing is not None:
            threading.Thread(target=self._watch, name="recsys-following", daemon=True).start()

    def load(
        self, name: str, path: str | None, weight: float | None = None, shadow: float | None = None
    ) -> Served:
        """Put a run in service under a name, in this worker; the others follow.

        Args:
            name: of a model in service, whose place it takes, or a new one.
            path: of the run, under the folder of `models_dir`; None is the folder that the model in service
                was loaded from, or for a new name the one that is called so.
            weight: share of the users; None keeps that of the name, and is 0 for a new one.
            shadow: percent of requests that it is asked beside another one; None as weight.

        Raises:
            ArgumentError: the run cannot be loaded or has other ids, or a share is no share; nothing changed.
        """
        assignment = self._in_service()
        _check_share("weight", weight, math.inf)
        _check_share("shadow", shadow, 100.0)
        old = next((place for place in assignment if place.served.name == name), None)
        try:
            served = self._made(name, self._folder(name, path, old), assignment)
        except RecsysError as error:
            self._observer.loaded(name, "", "refused")
            raise ArgumentError(str(error)) from None
        before = old or Place(served, 0.0)
        self._put(
            Place(
                served,
                before.weight if weight is None else float(weight),
                before.shadow if shadow is None else float(shadow),
                None if old is None else old.served,
            ),
            "ok",
        )
        return served

    def unload(self, name: str) -> Served:
        """Let a model go, in this worker; the others follow.

        Returns:
            The model that went.

        Raises:
            UnknownIdError: no model of this name is in service.
            ArgumentError: it is the default.
        """
        assignment = self._in_service()
        served = assignment.named(name).served
        if served is assignment.places[0].served:
            raise ArgumentError(
                f"model {name!r} is the default, which there has to be: load another run in its place"
            )
        if self._agreeing is not None:
            before = tuple(map(_agreed, assignment))
            self._agreeing.change(lambda models: tuple(o for o in models or before if o.name != name))
        self.assignment = assignment.without(name)
        self._observer.loaded(name, served.version, "unloaded")
        return served

    def roll_back(self, name: str) -> Served:
        """Put back what answered under a name before; the others follow.

        Raises:
            UnknownIdError: no model of this name is in service.
            ArgumentError: nothing was in its place before.
        """
        place = self._in_service().named(name)
        if place.before is None:
            raise ArgumentError(f"model {name!r} took nobody's place: there is nothing to go back to")
        self._put(replace(place, served=place.before, before=place.served), "rolled_back")
        return place.before

    def amend(self, name: str | None, change: Change) -> Served:
        """Change the catalog of a run in service, under every name that it has; the others follow.

        Args:
            name: of the model; None is the default.
            change: of its catalog.

        Raises:
            UnknownIdError, ArgumentError: no model of this name, or the change does not fit; nothing changed.
            CatalogError: the run folder holds another model by now, or cannot be written; nothing changed.
        """
        with nullcontext() if self._agreeing is None else self._agreeing.turn():
            # What another worker changed before is the catalog that this change begins with.
            self.follow()
            assignment = self._in_service()
            old = (assignment.places[0] if name is None else assignment.named(name)).served
            served = amended(old, change, self._recent(old), device=self._settings.device)
            for place in assignment:
                if same_run(place.served, served):
                    stale = place.before is not None and same_run(place.before, served)
                    own = replace(served, name=place.served.name)
                    self._put(replace(place, served=own, before=None if stale else place.before), "ok")
        return served

    def follow(self) -> bool:
        """Take over what the other workers agreed on.

        Returns:
            Whether all of it is in service here.
        """
        assignment = self.assignment
        if self._agreeing is None or assignment is None:
            return True
        agreed = self._agreeing.read()
        if agreed.generation == self._generation:
            return True
        self._generation = agreed.generation
        whole = True
        for own in agreed.models:
            try:
                self.assignment = assignment = self._followed(assignment, own)
            except Exception as error:
                # The model before goes on; the next change is followed again.
                whole = False
                self._observer.loaded(own.name, own.version, "refused")
                _log.warning("model %s was not loaded: %s", own.name, error)
        names = {own.name for own in agreed.models}
        for place in assignment:
            if place.served.name not in names:
                self.assignment = assignment = assignment.without(place.served.name)
                self._observer.loaded(place.served.name, place.served.version, "unloaded")
        return whole

    def end(self) -> None:
        """Follow nobody any more."""
        self._ended.set()
        self.changing.shutdown(wait=False, cancel_futures=True)

    def _of_settings(self) -> tuple[Agreed, ...]:
        settings = self._settings
        if settings.resumed:
            return tuple(
                Agreed(name=name, path=path, version="", weight=weight, shadow=percent)
                for name, path, weight, percent in settings.resumed
            )
        answering = [
            Agreed(name=name, path=path, version="", weight=weight, shadow=0.0)
            for name, path, weight in settings.models
        ]
        beside = [
            Agreed(name=name, path=path, version="", weight=0.0, shadow=percent)
            for name, path, percent in settings.shadows
        ]
        return (*answering, *beside)

    def _folder(self, name: str, path: str | None, old: Place | None) -> Path:
        if path is None and old is not None:
            return old.served.path
        return run_under(self._settings.models_dir, name if path is None else path)

    def _made(self, name: str, path: Path, assignment: Assignment) -> Served:
        served = load_served(name, path, device=self._settings.device)
        refuse_other_ids(served, assignment.places[0].served)
        self._check(served)
        warm_up(served, self._recent(served))
        return served

    def _put(self, place: Place, result: str) -> None:
        """Let a place take that of its name, here and in the agreement."""
        assignment = self._in_service().with_place(place)
        if self._agreeing is not None:
            own = _agreed(place)

            def changed(models: tuple[Agreed, ...]) -> tuple[Agreed, ...]:
                models = models or tuple(map(_agreed, self._in_service()))
                kept = tuple(own if model.name == own.name else model for model in models)
                return kept if own in kept else (*kept, own)

            self._agreeing.change(changed)
            # What others changed at the same time is followed by the next look, which finds this in place.
        self.assignment = assignment
        self._observer.loaded(place.served.name, place.served.version, result)

    def _followed(self, assignment: Assignment, own: Agreed) -> Assignment:
        old = next((place for place in assignment if place.served.name == own.name), None)
        for kept in () if old is None else (old.served, old.before):
            if old is not None and kept is not None and kept.version == own.version:
                other = old.before if kept is old.served else old.served
                same = kept is old.served and (old.weight, old.shadow) == (own.weight, own.shadow)
                if same:
                    return assignment
                if kept is not old.served:
                    self._observer.loaded(own.name, kept.version, "rolled_back")
                return assignment.with_place(Place(kept, own.weight, own.shadow, other))
        served = self._made(own.name, Path(own.path), assignment)
        self._observer.loaded(own.name, served.version, "ok")
        before = None if old is None else old.served
        if old is not None and same_run(old.served, served):
            # Another catalog of the same run; what was before the run is still that.
            before = old.before
        return assignment.with_place(Place(served, own.weight, own.shadow, before))

    def _watch(self) -> None:
        while not self._ended.wait(FOLLOW_SECONDS):
            try:
                self.changing.submit(self.follow).result()
            except RuntimeError:
                # The executor was shut down.
                return
            except Exception as error:
                _log.warning("models are not followed: %s", error)

    def _in_service(self) -> Assignment:
        if self.assignment is None:
            raise BusyError("the first model is loading: ask again in a second")
        return self.assignment


def _agreed(place: Place) -> Agreed:
    served = place.served
    return Agreed(
        name=served.name,
        path=str(served.path),
        version=served.version,
        weight=place.weight,
        shadow=place.shadow,
    )


def _check_share(name: str, value: float | None, most: float) -> None:
    if value is not None and not (0 <= value <= most and math.isfinite(value)):
        raise ArgumentError(
            f"{name} = {value} must be a number from 0" + (f" to {most:g}" if most < 1e9 else "")
        )
