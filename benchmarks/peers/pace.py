"""A whole training as a conversation: it stands still for every evaluation, and the clock with it.

Only the standard library is used here, because the sides run in other libraries' environments.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from .protocol import Slice, peak_memory_mib, reset_peak_memory


class QualitySide(Protocol):
    """One library with its data loaded and its model built, to be trained in one go."""

    facts: dict[str, Any]
    """What is worth reporting: versions, parameters, items, training_events, batch_unit, settings, ..."""

    def train(self, part: Slice, batch_size: int) -> None:
        """Train by the library's own loop, telling ``part.count`` of every step; it never says stop."""

    def measure(self, split: str, path: str) -> dict[str, Any]:
        """The model as it stands, on the last event of each user ("test") or the one before ("valid").

        Either the metrics by rule ("kept", "removed"), or nothing but what was written to ``path``: an NPZ of
        (U, d) ``states`` and (V, d) ``items``, float32 in the order of the log's ids, and (V,) ``known``,
        which items the model can score.
        """


class Pace(Slice):
    """Times a training, with pauses.

    Args:
        hold: called when a pause is due, with the clock stopped; training goes on when it returns.
        every: processor seconds of training from pause to pause. Infinite where the side pauses itself.
    """

    def __init__(self, hold: "Callable[[Pace], None]", every: float) -> None:
        super().__init__(budget_s=every)
        self.set_up_cpu_seconds = 0.0
        self.peak_mib = 0.0
        self._hold = hold
        self._part_cpu = 0.0
        self._running = True

    def restart_clock(self) -> None:
        """Leave out the time so far, a library's set-up before its first step; it is kept apart."""
        self.set_up_cpu_seconds += time.process_time() - self.cpu_started
        super().restart_clock()
        reset_peak_memory()

    def count(self, events: int, loss: float = 0.0, *, steps: int = 1) -> bool:
        """Record finished steps and pause if it is due."""
        self.steps += steps
        self.events += events
        self.loss_sum += loss
        if self._part_cpu + time.process_time() - self.cpu_started >= self.budget_s:
            self.pause()
        return False

    def stop_clock(self) -> None:
        """Take the time until now into account; nothing is timed until `pause` returns."""
        if self._running:
            self._running = False
            self.seconds += time.perf_counter() - self.started
            cpu = time.process_time() - self.cpu_started
            self.cpu_seconds += cpu
            self._part_cpu += cpu
            self.peak_mib = max(self.peak_mib, peak_memory_mib())

    def pause(self) -> None:
        """Let the model be measured, then go on."""
        self.stop_clock()
        self._hold(self)
        self._part_cpu = 0.0
        self._running = True
        super().restart_clock()
        reset_peak_memory()

    def totals(self) -> dict[str, Any]:
        """Everything counted so far."""
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "set_up_cpu_seconds": self.set_up_cpu_seconds,
            "events": self.events,
            "steps": self.steps,
            "peak_mib": self.peak_mib,
        }


def serve_quality(prepare: Callable[[dict[str, Any]], QualitySide]) -> None:
    """Answer requests to prepare, to train and to measure from standard input until it closes.

    ``train`` is answered at every pause with the totals so far; the next ``train`` goes on. ``measure``
    comes before the first or in a pause.
    """
    # Libraries print to standard output; the answers get a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    converse(prepare, sys.stdin, answers)


def converse(prepare: Callable[[dict[str, Any]], QualitySide], requests: TextIO, answers: TextIO) -> None:
    """`serve_quality` on given channels."""

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    def attend(side: QualitySide) -> dict[str, Any]:
        """Answer until training is to begin or to go on; that request."""
        while line := requests.readline():
            request: dict[str, Any] = json.loads(line)
            if request["op"] == "train":
                return request
            started, cpu_started = time.perf_counter(), time.process_time()
            answer = side.measure(request["split"], request["path"])
            spent = {
                "seconds": time.perf_counter() - started,
                "cpu_seconds": time.process_time() - cpu_started,
            }
            say(answer | spent)
        raise EOFError

    def hold(pace: Pace) -> None:
        say(pace.totals() | {"ended": False})
        attend(side)

    try:
        first = json.loads(requests.readline())
        started, cpu_started = time.perf_counter(), time.process_time()
        side = prepare(first["task"])
        spent = {
            "prepare_seconds": time.perf_counter() - started,
            "prepare_cpu_seconds": time.process_time() - cpu_started,
        }
        say(dict(side.facts) | spent)
        request = attend(side)
        pace = Pace(hold, float(request["every"]))
        reset_peak_memory()
        side.train(pace, int(request["batch_size"]))
        say(pace.totals() | {"ended": True})
        attend(side)
    except EOFError:
        return
    except Exception as error:
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {error}".splitlines()[0]})
