"""The lines of the table: what is asked, how much, and what was aimed at."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recsys.benchmarks.serving.asked import (
    Pairs,
    by_history,
    by_user,
    by_user_denying,
    has_answers,
    of_events,
    users_of,
)
from recsys.benchmarks.serving.open_loop import Check, Exchange, Load, drive, request
from recsys.benchmarks.serving.records import median
from recsys.benchmarks.serving.server import Server
from recsys.recommender import Recommender

__all__ = ["LINES", "Line", "Setting"]


@dataclass(slots=True)
class Setting:
    """What the lines are run with.

    Attributes:
        runs: encoder to run folder.
        seconds: of each load.
        rounds: how often a load is put on; figures are medians.
    """

    runs: Mapping[str, Path]
    seconds: float = 2.5
    rounds: int = 3
    _models: dict[str, Recommender] = field(default_factory=dict)

    def model(self, encoder: str) -> Recommender:
        """The run's model, for what to ask; loaded once."""
        if encoder not in self._models:
            self._models[encoder] = Recommender.load(self.runs[encoder], device="cpu")
        return self._models[encoder]

    @contextmanager
    def server(self, encoder: str, workers: int, *, events: bool = False) -> Any:
        """A service of a run; with an event store of its own if wanted."""
        arguments = [str(self.runs[encoder]), "--workers", str(workers), "--drain", "0"]
        with TemporaryDirectory() as folder:
            arguments += ["--events", str(Path(folder) / "events.db")] if events else ["--no-events"]
            with Server(arguments) as server:
                yield server


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table: its words, what was aimed at, whose figure that is, and what measures it."""

    what: str
    aim: str
    against: str
    measure: Callable[[Setting], dict[str, Any]]


def _noop(setting: Setting) -> dict[str, Any]:
    with setting.server("sasrec", 1) as server:
        return _at(setting, server, lambda count, seed: [[request("GET", "/livez")]], 1000)


def _history(setting: Setting) -> dict[str, Any]:
    model = setting.model("sasrec")
    found: dict[str, Any] = {}
    for workers in (1, 2):
        with setting.server("sasrec", workers) as server:
            found[f"workers_{workers}"] = _highest(
                setting,
                server,
                lambda count, seed: by_history(model, count, seed=seed),
                [rate * workers for rate in RATES],
                p90=50,
                p99=100,
            )
    return found


def _sessions(setting: Setting) -> dict[str, Any]:
    with setting.server("sasrec", 2) as server:
        model = setting.model("sasrec")
        return _at(
            setting,
            server,
            lambda count, seed: by_history(model, count, seed=seed, most=10),
            500,
            has_answers,
        )


def _unchanged(setting: Setting) -> dict[str, Any]:
    exchanges = by_user(users_of(setting.model("sasrec"), 200))
    with setting.server("sasrec", 2, events=True) as server:
        _met(server, exchanges)
        return _at(setting, server, lambda count, seed: exchanges, 1000, has_answers)


def _vectors(setting: Setting) -> dict[str, Any]:
    model = setting.model("sasrec")
    users = users_of(model, 200)
    with setting.server("sasrec", 2, events=True) as server:
        _met(server, by_user(users))
        return _at(
            setting,
            server,
            lambda count, seed: by_user_denying(model, users, count, seed=seed),
            500,
            has_answers,
        )


def _met(server: Server, exchanges: Sequence[Exchange]) -> None:
    """Ask until every worker has met every user."""
    drive(Load(port=server.port, rate=250, seconds=6, connections=32, patience=20), exchanges)


def _pairs(setting: Setting) -> dict[str, Any]:
    model = setting.model("mamba")
    with setting.server("mamba", 1, events=True) as server:
        rounds = []
        for number in range(setting.rounds):
            pairs = Pairs(model, int(200 * setting.seconds * 1.5) + 100, seed=10 + number)
            load = Load(port=server.port, rate=200, seconds=setting.seconds, seed=number)
            rounds.append(drive(load, pairs.exchanges, pairs.check).summary())
        return median(rounds)


def _events(setting: Setting) -> dict[str, Any]:
    model = setting.model("sasrec")
    found = {}
    with setting.server("sasrec", 1, events=True) as server:
        for rate in (50, 100, 150):
            rounds = []
            for number in range(setting.rounds):
                posts = of_events(model, int(rate * setting.seconds * 1.3) + 50, seed=1000 * rate + number)
                load = Load(port=server.port, rate=rate, seconds=setting.seconds, seed=number)
                rounds.append(drive(load, posts).summary())
            found[f"events_{100 * rate}"] = median(rounds)
    return found


def _overload(setting: Setting) -> dict[str, Any]:
    model = setting.model("sasrec")
    with setting.server("sasrec", 1) as server:
        # The queue takes 256: as many that wait have to have a connection each, and more.
        def asked(rate: float, seed: int = 0) -> dict[str, Any]:
            wide = Load(
                port=server.port,
                rate=rate,
                seconds=setting.seconds,
                connections=700,
                waiting=100,
                patience=10.0,
                seed=seed,
            )
            return drive(wide, by_history(model, len(wide.due()), seed=int(rate) + seed)).summary()

        peak = max(asked(rate)["good_per_s"] for rate in (200, 300, 400, 600))
        rounds = []
        for number in range(setting.rounds):
            over = asked(3 * peak, number)
            rounds.append({**over, "recovery_s": _recovery(server, model, peak / 2)})
        found = median(rounds)
        return {**found, "peak_per_s": peak, "share_of_peak": found["good_per_s"] / peak}


def _recovery(server: Server, model: Recommender, rate: float) -> float:
    """Seconds after a load until half of the peak is answered with p90 <= 50 ms, looked at each 0.25 s."""
    asked = by_history(model, 5000, seed=1)
    began = time.perf_counter()
    for number in range(100):
        load = Load(port=server.port, rate=rate, seconds=0.25, connections=64, seed=number)
        found = drive(load, asked[number * len(asked) // 100 :]).summary()
        if not found["failed"] and found["latency"]["p90_ms"] <= 50:
            return time.perf_counter() - began - 0.25
    return time.perf_counter() - began


def _cold(setting: Setting) -> dict[str, Any]:
    rounds = []
    for _ in range(setting.rounds):
        with setting.server("sasrec", 1) as server:
            rounds.append({"cold_s": server.cold, "memory_mib": server.memory() / 2**20})
    with setting.server("sasrec", 2) as server:
        two = {"cold_s": server.cold, "memory_mib": server.memory() / 2**20}
    return {**median(rounds), "workers_2": median([two])}


RATES = (100, 150, 200, 250, 300, 400)
"""Requests a second for each worker, until one is too many."""


Asked = Callable[[int, int], Sequence[Exchange]]
"""So many exchanges, drawn by a seed."""


def _at(
    setting: Setting,
    server: Server,
    asked: Asked,
    rate: float,
    check: Check | None = None,
) -> dict[str, Any]:
    """Medians of rounds at one rate, after a second that is not counted."""
    drive(Load(port=server.port, rate=rate / 2, seconds=1.0), asked(int(rate), int(rate)))
    rounds = []
    for number in range(setting.rounds):
        load = Load(port=server.port, rate=rate, seconds=setting.seconds, seed=number)
        exchanges = asked(len(load.due()), 1000 * int(rate) + number)
        used = server.processor_seconds()
        found = drive(load, exchanges, check).summary()
        spent = server.processor_seconds() - used
        rounds.append({**found, "processor_ms": 1e3 * spent / max(1.0, rate * setting.seconds)})
    return median(rounds)


def _highest(
    setting: Setting,
    server: Server,
    asked: Asked,
    rates: Sequence[float],
    *,
    p90: float,
    p99: float,
) -> dict[str, Any]:
    """The highest of the rates at which every request is answered within the two bounds, and all figures."""
    steps = []
    for rate in rates:
        found = _at(setting, server, asked, rate, has_answers)
        kept = not found["failed"] and found["latency"]["p90_ms"] <= p90 and found["latency"]["p99_ms"] <= p99
        steps.append({"rate": rate, "kept": kept, **found})
        if not any(step["kept"] for step in steps[-2:]) and len(steps) > 1:
            break  # one that was not kept may be the machine's other work, two in a row are not
    return {"highest_per_s": max((s["rate"] for s in steps if s["kept"]), default=0), "steps": steps}


LINES: Mapping[str, Line] = {
    "noop": Line("noop route, 1,000 requests/s", "p90 <= 1.5 ms", "ETUDE, Actix: about 1 ms", _noop),
    "history": Line(
        "SASRec, history in the body, highest rate at p90 <= 50 and p99 <= 100 ms",
        ">= 150 requests/s a core",
        "ETUDE: 91 a virtual processor at p90 50 ms",
        _history,
    ),
    "sessions": Line(
        "SASRec, sessions of 10 events, 500 requests/s on 2 workers", "p90 <= 20 ms", "ETUDE", _sessions
    ),
    "unchanged": Line(
        "user unchanged since last time, the same request, 1,000/s on 2 workers",
        "p90 < 7 ms",
        "Serenade",
        _unchanged,
    ),
    "vectors": Line(
        "the same users, each time without another item: vectors kept, answers not; 500/s on 2 workers",
        "p90 <= 20 ms",
        "",
        _vectors,
    ),
    "pairs": Line(
        "event, then recommend for the same user, Mamba, 200 pairs/s on 1 worker",
        "p99 <= 50 ms, the event always in the answer",
        "Metarank: 10 to 30 ms, racy",
        _pairs,
    ),
    "events": Line(
        "durable events in posts of 100, 1 worker",
        ">= 5,000/s at p99 <= 50 ms",
        "Metarank: 1,000 to 3,000/s",
        _events,
    ),
    "overload": Line(
        "3 times the peak, 1 worker",
        ">= 90% of the peak answered, refusals in < 10 ms, recovery in < 2 s",
        "Ray Serve queues",
        _overload,
    ),
    "cold": Line("command to readiness, kernels compiled before", "<= 15 s", "", _cold),
}
"""By the name that `--lines` takes."""
