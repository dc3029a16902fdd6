"""Options of `recsys serve` against each other: ``python -m recsys.benchmarks.serving.compare RUN OPTIONS``.

    python -m recsys.benchmarks.serving.compare run "--batch 16" "--batch 64" --rate 1500
    python -m recsys.benchmarks.serving.compare run "" "--durability process" --ask pairs --rate 100

Starts a service for each set of options, puts a burst of load on one after the other, turns the order around
from round to round, and prints medians: what else the machine does, it does to all of them. Records nothing.
"""

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from recsys.benchmarks.serving.asked import Pairs, by_history, has_answers
from recsys.benchmarks.serving.open_loop import Load, drive
from recsys.benchmarks.serving.records import median
from recsys.benchmarks.serving.server import Server
from recsys.errors import RecsysError
from recsys.recommender import Recommender

__all__ = ["compare", "in_turn"]

ASKED = ("history", "pairs")


def compare(
    run: Path, options: Sequence[str], *, ask: str, rate: float, seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """Medians of each set of options.

    Args:
        run: folder.
        options: of `recsys serve`, as on its command line; each a service of its own.
        ask: one of `ASKED`: histories in the body, or an event and then an answer for its user.
        rate: exchanges a second.
        seconds: of a burst.
        rounds: bursts for each.

    Raises:
        RecsysError: a service does not start.
    """
    model = Recommender.load(run, device="cpu")

    def burst(server: Server, number: int) -> dict[str, Any]:
        load = Load(
            port=server.port,
            rate=rate,
            seconds=seconds,
            connections=700,
            waiting=100,
            patience=10,
            seed=number,
        )
        used = server.processor_seconds()
        if ask == "pairs":
            pairs = Pairs(model, len(load.due()), seed=number)
            found = drive(load, pairs.exchanges, pairs.check)
        else:
            found = drive(load, by_history(model, len(load.due()), seed=number), has_answers)
        spent = server.processor_seconds() - used
        return {**found.summary(), "processor_ms": 1e3 * spent / max(1, len(load.due()))}

    with ExitStack() as stack:
        servers = {}
        for place, own in enumerate(options):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            events = ["--events", str(Path(folder) / "events.db")] if ask == "pairs" else ["--no-events"]
            arguments = [str(run), "--drain", "0", *events, *shlex.split(own)]
            servers[own] = stack.enter_context(Server(arguments))
            burst(servers[own], 1000 + place)  # the first calls grow what is kept
        found: dict[str, list[dict[str, Any]]] = {own: [] for own in servers}
        for number in range(rounds):
            for own in in_turn(list(servers), number):
                found[own].append(burst(servers[own], number))
                time.sleep(0.5)  # what was left waiting is answered
    return {own: median(each) for own, each in found.items()}


def in_turn(names: Sequence[str], number: int) -> Sequence[str]:
    """The order of a round: every other one is the other way around."""
    return names if number % 2 == 0 else names[::-1]


def _told(found: Mapping[str, Any]) -> str:
    def times(name: str) -> str:
        quantiles = found.get(name) or {}
        return "/".join(f"{quantiles[key]:.1f}" if key in quantiles else "-" for key in QUANTILES)

    return (
        f"{found['good_per_s']:7.0f}/s answered in {times('latency')} ms, the others refused in "
        f"{times('refused')} ms; sent {times('sent_late')} ms late; {found['processor_ms']:.2f} ms of cores"
    )


QUANTILES = ("p50_ms", "p90_ms", "p99_ms")


def main() -> int:
    """Measure and print; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("options", nargs="+", help="of recsys serve, quoted; each is a service of its own")
    parser.add_argument("--ask", choices=ASKED, default="history", help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a burst (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="for each (default: %(default)s)")
    asked = parser.parse_args()
    try:
        found = compare(
            asked.run,
            asked.options,
            ask=asked.ask,
            rate=asked.rate,
            seconds=asked.seconds,
            rounds=asked.rounds,
        )
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print("p50/p90/p99, medians of rounds")
    for own, each in found.items():
        print(f"{own or '(as it is)'}: {_told(each)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
