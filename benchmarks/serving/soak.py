"""An hour, or as long as you like, of steady load: does anything fail, does memory grow?

    python -m recsys.benchmarks.serving.soak RUN --minutes 60

One worker with an event store is asked 100 times a second: histories, users of the log, and events, in turn.
Every half minute its memory and descriptors are noted: memory that it shares with nobody, without vectors and
answers that it keeps for users, of which there are more each minute until they take 256 MiB. It is compared
between the end of the first tenth, or the fourth minute where that is later, when all else that is kept has
filled (three minutes of traffic, the store's pages), and the end; it may grow by 2%.
"""

import argparse
import math
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.serving.asked import by_history, by_user, of_events, users_of
from recsys.benchmarks.serving.open_loop import Load, drive
from recsys.benchmarks.serving.records import FOLDER, merge
from recsys.benchmarks.serving.server import Server
from recsys.errors import ConfigError, RecsysError
from recsys.recommender import Recommender

__all__ = ["MOST_GROWTH", "soak"]

MOST_GROWTH = 0.02
_PART = 30.0
"""Seconds between two looks."""
_FILLED = 240.0
"""Seconds until what a service keeps of its last minutes has filled."""


def soak(run: Path, minutes: float, rate: float = 100.0) -> dict[str, Any]:
    """Ask a service of a run for so long.

    Args:
        run: folder.
        minutes: of load; at least ten looks are taken.
        rate: requests a second.

    Returns:
        Failures, answers by status, latencies (medians of the parts and the worst one), MiB, MiB kept for
        users beside them and descriptors over time, growth as a fraction.
    """
    model = Recommender.load(run, device="cpu")
    # A cache that fills for an hour is no leak: the users are few enough to be met in the first minutes.
    users = users_of(model, 300)
    part = min(_PART, 6.0 * minutes)
    looks: list[tuple[float, float, int]] = []
    found: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        place = str(Path(folder) / "events.db")
        server = stack.enter_context(Server([str(run), "--workers", "1", "--events", place]))
        for number in range(max(10, round(60 * minutes / part))):
            groups = (
                by_history(model, 300, seed=number),
                by_user(users),
                of_events(model, 300, 1, seed=number),
            )
            exchanges = [each for turn in zip(*groups, strict=False) for each in turn]
            load = Load(port=server.port, rate=rate, seconds=part, seed=number)
            found.append(drive(load, exchanges).summary())
            looks.append((server.own_memory() / 2**20, server.kept() / 2**20, server.descriptors()))
            print(
                f"{(number + 1) * part / 60:6.1f} min: {found[-1]['good_per_s']:.0f}/s, "
                f"failed {found[-1]['failed']}, p99 {found[-1]['latency']['p99_ms']:.1f} ms, "
                f"{looks[-1][0]:.1f} MiB and {looks[-1][1]:.1f} kept for users, {looks[-1][2]} descriptors",
                flush=True,
            )
    memory = [mib for mib, *_ in looks]
    filled = memory[_filled(len(memory), part)]
    return {
        "minutes": minutes,
        "rate": rate,
        "failed": sum(one["failed"] for one in found),
        "statuses": dict(sum((Counter(one["statuses"]) for one in found), Counter())),
        "p99_ms": {
            "median": float(np.median([one["latency"]["p99_ms"] for one in found])),
            "worst": max(one["latency"]["p99_ms"] for one in found),
        },
        "memory_mib": [round(mib, 1) for mib in memory],
        "kept_mib": [round(mib, 1) for _, mib, _ in looks],
        "descriptors": [count for *_, count in looks],
        "growth": round(float(np.median(memory[-3:])) / filled - 1, 4),
    }


def _filled(looks: int, seconds: float) -> int:
    """Which look is compared with the last: after a tenth and four minutes, but at half at the latest."""
    return min(max(1, looks // 10, math.ceil(_FILLED / seconds)), looks // 2)


def main() -> int:
    """Run, print, record; 1 if a request failed or memory grew by more than 2%."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="of load (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "soak.json", help="record to write")
    options = parser.parse_args()
    try:
        if options.minutes <= 0:
            raise ConfigError(f"--minutes {options.minutes:g}: has to be above 0")
        found = soak(options.run, options.minutes)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    merge(options.out, "python -m recsys.benchmarks.serving.soak", "soaks", {"sasrec": found})
    kept = not found["failed"] and found["growth"] <= MOST_GROWTH
    print(f"failed {found['failed']}, memory grew by {found['growth']:.1%}: {'kept' if kept else 'NOT kept'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
