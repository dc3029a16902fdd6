"""The conversation with one side of a comparison: a JSON line in, a JSON line out.

A side is a program that lives as long as the comparison. It is asked to ``prepare`` once and then to
``train`` slice by slice, or to ``evaluate`` again and again, so that sides can take turns on one machine.
Only the standard library is used here, because the sides run in other libraries' environments.
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

MIN_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every side is to train; the same for both sides of a pair.

    Attributes:
        log: NumPy file of (N, 3) int64: user, item, position (0, 1, ... within each user), sorted by
            user and position. The last two events of each user are not to be trained on.
        max_length: most events of the past that a prediction may see.
        d_ff: width of the feed-forward layer.
        block: kind of Transformer block, for the side that can choose.
        positions: kind of position information, for the side that can choose.
        encoder: ours that equals the peer's model, for our side.
        batch_size: what a batch is counted in depends on the side: prefix rows, sequences or events.
    """

    log: str
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int
    max_length: int
    dropout: float
    learning_rate: float
    batch_size: int
    seed: int
    threads: int
    block: str
    positions: str
    encoder: str = "sasrec"


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """What every side is to evaluate.

    Attributes:
        log: as in `Task`; the last event of each user is the target, those before it are the history.
        states: NumPy file of (U, d) float32, the users' states in the order of their ids.
        items: NumPy file of (V, d) float32, the items' vectors in the order of their ids.
        ks: cut-offs of the metrics.
        batch_users: users that the side scores at once.
    """

    log: str
    states: str
    items: str
    ks: tuple[int, ...]
    batch_users: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class OurTask:
    """What our side is to train when whole trainings are compared: a preset, not a given network.

    Attributes:
        log: as in `Task`.
        encoder: name of the encoder.
        preset: name of its preset.
    """

    log: str
    encoder: str
    preset: str
    seed: int
    threads: int


@dataclass(kw_only=True)
class Slice:
    """Counts one slice of training: whole steps until the time is used up."""

    budget_s: float
    started: float = field(default_factory=time.perf_counter)
    cpu_started: float = field(default_factory=time.process_time)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: int = 0
    events: int = 0
    loss_sum: float = 0.0

    def restart_clock(self) -> None:
        """Leave out the time so far: a library's set-up before its first step."""
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def count(self, events: int, loss: float = 0.0, *, steps: int = 1) -> bool:
        """Record finished steps, with the sum of their losses, and say whether the slice is over."""
        self.seconds = time.perf_counter() - self.started
        self.cpu_seconds = time.process_time() - self.cpu_started
        self.steps += steps
        self.events += events
        self.loss_sum += loss
        return self.seconds >= self.budget_s and self.steps >= MIN_STEPS


class Side(Protocol):
    """One library with its data loaded and its model built."""

    facts: dict[str, Any]
    """What is worth reporting: versions, parameters, items, training_events, batch_unit, ..."""

    def train(self, part: Slice, batch_size: int) -> None:
        """Train until ``part.count`` says that the slice is over; go on from where it stopped before."""


class EvaluationSide(Protocol):
    """One library with the states, items and histories loaded."""

    facts: dict[str, Any]
    """What is worth reporting: versions and batch size."""

    def evaluate(self, seen: str) -> dict[str, dict[str, float]]:
        """Rank and measure with seen items "kept", "removed" or "both"; the metrics by rule."""


def serve(prepare: Callable[[Task], Side]) -> None:
    """Answer requests to prepare and to train from standard input until it closes."""

    def train(side: Side, request: dict[str, Any]) -> dict[str, Any]:
        return _train(side, float(request["seconds"]), int(request["batch_size"]))

    _serve(lambda task: prepare(Task(**task)), train)


def serve_evaluation(prepare: Callable[[EvaluationTask], EvaluationSide]) -> None:
    """Answer requests to prepare and to evaluate from standard input until it closes."""

    def evaluate(side: EvaluationSide, request: dict[str, Any]) -> dict[str, Any]:
        started, cpu_started = time.perf_counter(), time.process_time()
        metrics = side.evaluate(request["seen"])
        return {
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu_started,
            "metrics": metrics,
        }

    _serve(lambda task: prepare(EvaluationTask(**task)), evaluate)


def _serve(prepare: Callable[[dict[str, Any]], Any], work: Callable[[Any, dict[str, Any]], Any]) -> None:
    # Libraries print to standard output; the answers get a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reset_peak_memory()
            started = time.perf_counter()
            if request["op"] == "prepare":
                side = prepare(request["task"])
                answer = dict(side.facts) | {"prepare_seconds": time.perf_counter() - started}
            else:
                assert side is not None, "prepare comes first"
                answer = work(side, request)
            answer["peak_mib"] = peak_memory_mib()
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _train(side: Side, seconds: float, batch_size: int) -> dict[str, Any]:
    part = Slice(budget_s=seconds)
    side.train(part, batch_size)
    return {
        "events": part.events,
        "steps": part.steps,
        "seconds": part.seconds,
        "events_per_second": part.events / part.seconds,
        "loss": part.loss_sum / part.steps,
        # Cores kept busy; well below the thread count, the machine was shared or the side waits.
        "cores_busy": part.cpu_seconds / part.seconds,
        "cpu_us_per_event": part.cpu_seconds / part.events * 1e6,
    }


def reset_peak_memory() -> None:
    """Let the kernel count the process's peak anew (Linux only)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mib() -> float:
    """Largest resident size since the last reset, or of the whole life where it cannot be reset."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
