"""What batches and threads are worth to the library below the service.

    python -m recsys.benchmarks.serving.batching RUN [RUN ...]

Asks `Recommender.recommend_arrays` for histories of the run's users, so many at a time, and counts requests a
second in four layouts:

    1 process                    one thread asks, kernels use one
    1 process, kernels on 2      one thread asks, torch, OpenMP and numba use two
    1 process, 2 callers         two threads ask, kernels use one each
    2 processes                  one thread each asks, kernels use one

Rounds alternate between layouts, and a figure is the median of its rounds. Every process is a fresh one, for
numba and OpenMP take their number of threads when they are loaded.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys.benchmarks.serving.records import FOLDER, merge, raw_histories

__all__ = ["BATCHES", "LAYOUTS", "measure"]

BATCHES = (1, 4, 16, 64)
LAYOUTS = ("1 process", "1 process, kernels on 2", "1 process, 2 callers", "2 processes")
_DRAWN = 512
"""Histories that requests go round."""


class Asker:
    """A process that has loaded a run and asks when it is told to.

    Args:
        run: folder.
        threads: of its kernels.
    """

    def __init__(self, run: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recsys.benchmarks.serving.batching", "--asker", str(threads), str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.about = self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.stdout.close()  # type: ignore[union-attr]
        self._process.wait(timeout=30)

    def begin(self, batch: int, callers: int, seconds: float) -> None:
        """Have it ask, without waiting."""
        print(json.dumps([batch, callers, seconds]), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: it has ended.
        """
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise RuntimeError(f"the asking process ended with {self._process.wait()}; see what it printed")
        found: dict[str, Any] = json.loads(line)
        return found


def measure(
    run: Path, batches: Sequence[int] = BATCHES, seconds: float = 0.7, rounds: int = 3
) -> dict[str, Any]:
    """Requests a second of every layout and batch.

    Args:
        run: folder of a finished run.
        batches: requests that are asked together.
        seconds: of each cell in each round.
        rounds: how often.

    Returns:
        What was asked, and under "requests_per_s" layout, batch and the median, least and greatest figure.
    """
    rates: dict[tuple[str, int], list[float]] = {(own, b): [] for own in LAYOUTS for b in batches}
    with ExitStack() as stack:
        first, second = (stack.enter_context(Asker(run, 1)) for _ in range(2))
        both = stack.enter_context(Asker(run, 2))
        who: dict[str, tuple[list[Asker], int]] = {
            LAYOUTS[0]: ([first], 1),
            LAYOUTS[1]: ([both], 1),
            LAYOUTS[2]: ([first], 2),
            LAYOUTS[3]: ([first, second], 1),
        }
        for number in range(rounds):
            for layout in LAYOUTS if number % 2 == 0 else LAYOUTS[::-1]:
                askers, callers = who[layout]
                for batch in batches:
                    for asker in askers:
                        asker.begin(batch, callers, seconds)
                    rates[layout, batch].append(sum(asker.answer()["rate"] for asker in askers))
        about = first.about
    return {
        **about,
        "seconds": seconds,
        "rounds": rounds,
        "requests_per_s": {
            layout: {
                str(batch): {
                    name: float(f"{value(rates[layout, batch]):.4g}")
                    for name, value in (("median", np.median), ("min", np.min), ("max", np.max))
                }
                for batch in batches
            }
            for layout in LAYOUTS
        },
    }


def _asker(run: Path, threads: int) -> None:
    import torch

    from recsys.recommender import Recommender

    torch.set_num_threads(threads)
    model = Recommender.load(run, device="cpu")
    histories = raw_histories(model, _DRAWN)
    for batch in BATCHES:  # the first calls compile, and grow what is kept
        model.recommend_arrays(histories=histories[:batch], k=10)
    lengths = [len(history) for history in histories]
    print(
        json.dumps(
            {
                "encoder": model.encoder,
                "items": model.store_.n_items,
                "width": model.encoder_.config.d_model,
                "history_median": float(np.median(lengths)),
                "read_at_most": model.encoder_.history_length,
                "index": model.index_.kind,
                "k": 10,
            }
        ),
        flush=True,
    )
    for line in sys.stdin:
        batch, callers, seconds = json.loads(line)
        counts = [0] * callers
        began = time.perf_counter()

        def ask(number: int, batch: int = batch, seconds: float = seconds, began: float = began) -> None:
            place = number * len(histories) // 2
            while time.perf_counter() - began < seconds:
                chosen = [histories[(place + each) % len(histories)] for each in range(batch)]
                model.recommend_arrays(histories=chosen, k=10)
                counts[number] += batch  # noqa: B023
                place += batch

        threads_of = [threading.Thread(target=ask, args=(number,)) for number in range(1, callers)]
        for own in threads_of:
            own.start()
        ask(0)
        for own in threads_of:
            own.join()
        print(json.dumps({"rate": sum(counts) / (time.perf_counter() - began)}), flush=True)


def main() -> None:
    """Run, print, write the record; or be one of the processes that ask."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, default=0.7)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FOLDER / "batching.json")
    parser.add_argument("--asker", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.asker:
        _asker(options.runs[0], options.asker)
        return
    for run in options.runs:
        made = measure(run, seconds=options.seconds, rounds=options.rounds)
        print(
            f"{made['encoder']}, d {made['width']}, histories of {made['history_median']:.0f} at the median"
        )
        for layout, each in made["requests_per_s"].items():
            cells = "  ".join(f"{batch}: {rate['median']:6,.0f}/s" for batch, rate in each.items())
            print(f"  {layout:24} {cells}")
        merge(
            options.out, "python -m recsys.benchmarks.serving.batching", "encoders", {made["encoder"]: made}
        )


if __name__ == "__main__":
    main()
