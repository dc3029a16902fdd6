"""Models that change under load: ``python -m recsys.benchmarks.serving.swaps``.

    python -m recsys.benchmarks.serving.swaps [--swaps 100] [--seconds 6]

Trains two small runs of the same kind, serves the one, and asks by the open-loop client. Rounds with swaps
alternate with rounds without; in those with, the two runs take each other's place once every `--every`
seconds, each loaded from its folder anew. Each answer has to be of one of the two, and the first request
after a swap is answered by the new one. Then a damaged run, one of other ids, one that is not there and one
outside the folder are asked for under the same load, and the folder of the run in service is deleted.
"""

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.serving.asked import K, by_history
from recsys.benchmarks.serving.made import made_run
from recsys.benchmarks.serving.open_loop import Load, Outcome, drive
from recsys.benchmarks.serving.records import FOLDER, merge, quantiles
from recsys.benchmarks.serving.server import Server
from recsys.errors import RecsysError
from recsys.recommender import Recommender

__all__ = ["main", "measure"]

_NAMES = ("first", "second")


def measure(
    folder: Path, *, swaps: int = 100, seconds: float = 6.0, every: float = 1.0, rate: float = 50.0
) -> dict[str, Any]:
    """Serve and swap.

    Args:
        folder: that gets the runs; its copies are damaged and deleted.
        swaps: so many at least.
        seconds: of a round.
        every: seconds from one swap to the next, at least.
        rate: requests a second.

    Returns:
        Counts of what failed, latencies with and without swaps, seconds of a swap, and what was refused how.

    Raises:
        RecsysError: a swap was refused that should not be, or the service did not start.
    """
    for number, name in enumerate(_NAMES):
        made_run(folder / name, "sasrec", users=200 + number, width=64)
    model = Recommender.load(folder / "first" / "sasrec", device="cpu")
    arguments = [str(folder / "first" / "sasrec"), "--models", str(folder), "--no-events", "--no-page"]
    rounds: dict[str, list[Outcome]] = {"calm": [], "swapped": []}
    with Server(arguments, environment={"OMP_NUM_THREADS": "1"}) as server:
        swapper = _Swapper(server)

        def load() -> Outcome:
            number = sum(map(len, rounds.values()))
            asked = by_history(model, int(rate * seconds * 1.5), seed=number, most=50)
            own = Load(port=server.port, rate=rate, seconds=seconds, seed=number)
            return drive(own, asked, swapper.right)

        for _ in range(2):  # both have been loaded once, and nothing is left to compile
            swapper.swap()
        load()
        swapper.taken.clear()
        while len(swapper.taken) < swaps:
            swap = partial(swapper.every, every, seconds, swaps - len(swapper.taken))
            order = ("calm", "swapped") if len(rounds["calm"]) % 2 == 0 else ("swapped", "calm")
            for kind in order:
                rounds[kind].append(load() if kind == "calm" else _beside(swap, load))
            print(f"{len(swapper.taken)} of {swaps} swaps", file=sys.stderr, flush=True)
        refused: dict[str, Any] = {}
        hurt = _beside(lambda: refused.update(_refusals(folder, swapper)), load)
    told = {kind: _told(own) for kind, own in rounds.items()}
    return {
        "swaps": len(swapper.taken),
        "swap": quantiles(swapper.taken),
        "first_answer_of_the_old": swapper.stale,
        **told,
        "p99_ratio": float(f"{told['swapped']['latency']['p99_ms'] / told['calm']['latency']['p99_ms']:.3g}"),
        "refused": refused,
        "while_refused": _told([hurt]),
    }


class _Swapper:
    """Lets two runs take each other's place, and looks at who answers."""

    def __init__(self, server: Server) -> None:
        self._server, self._now = server, 0
        self.taken: list[float] = []
        self.stale = 0
        self.versions = {self.version()}

    def version(self) -> str:
        """Of the model in service."""
        return str(json.loads(self._server.ask("GET", "/v1/models")[1])["models"][0]["version"])

    def load(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask for a run; status and what was said."""
        status, body = self._server.ask("POST", "/v1/models/default/load", {"path": path}, timeout=60)
        found: dict[str, Any] = json.loads(body)
        return status, found

    def swap(self) -> None:
        """Load the other one, and see that the next request is its."""
        began = time.perf_counter()
        status, found = self.load(f"{_NAMES[1 - self._now]}/sasrec")
        if status != 200:
            raise RecsysError(f"a swap was refused with {status}: {found}")
        self.taken.append(time.perf_counter() - began)
        self._now = 1 - self._now
        self.versions.add(found["version"])
        self.stale += self.answering() != found["version"]

    def answering(self) -> str:
        """Version that gives the next answer."""
        status, body = self._server.ask("POST", "/v1/recommend", {"history": [1, 2, 3], "k": K})
        return str(json.loads(body)["version"]) if status == 200 else f"status {status}"

    def every(self, every: float, seconds: float, most: int) -> None:
        """Swap for so many seconds."""
        began = time.perf_counter()
        for number in range(most):
            wait = began + number * every - time.perf_counter()
            if time.perf_counter() + max(wait, 0) > began + seconds - 0.5:
                return
            time.sleep(max(wait, 0))
            self.swap()

    def right(self, _: int, bodies: Sequence[bytes]) -> bool:
        """Whether an answer is whole, and of one of the two runs."""
        found = json.loads(bodies[0])
        return len(found["items"]) == K and found["version"] in self.versions

    @property
    def path(self) -> str:
        """Of the run in service, under the folder."""
        return f"{_NAMES[self._now]}/sasrec"


def _refusals(folder: Path, swapper: _Swapper) -> dict[str, Any]:
    """Ask for what cannot be served; of each the status, the line, and whether the old one goes on."""
    before = swapper.version()
    source = folder / swapper.path
    damaged = folder / "damaged"
    shutil.copytree(source, damaged)
    weights = damaged / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    _run_of_text(folder / "text")
    found = {}
    for path in ("damaged", "text", "nowhere", "../outside"):
        status, said = swapper.load(path)
        line = str(said.get("detail", said)).replace(str(folder), "")
        found[path] = {"status": status, "said": line, "old_goes_on": swapper.answering() == before}
    shutil.rmtree(source)
    status, said = swapper.load(swapper.path)
    line = str(said.get("detail", said)).replace(str(folder), "")
    found["deleted while in service"] = {
        "status": status,
        "said": line,
        "old_goes_on": swapper.answering() == before,
    }
    return found


def _run_of_text(out: Path) -> None:
    """Train a run whose items are named by text."""
    import polars as pl

    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(30), 12),
            "item_id": [f"item {number}" for number in rng.integers(0, 20, 360)],
            "timestamp": np.arange(360) * 60,
        }
    )
    Recommender("sasrec", encoder_options={"d_model": 16}, training_options={"epochs": 1}, device="cpu").fit(
        log, out=out
    )


def _beside(work: Callable[[], None], load: Callable[[], Outcome]) -> Outcome:
    """Work on a thread while the load runs; what the work raises is raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    found = load()
    thread.join()
    if failed:
        raise failed[0]
    return found


def _told(rounds: Sequence[Outcome]) -> dict[str, Any]:
    taken = [[t for status, own in one.taken.items() if status // 100 == 2 for t in own] for one in rounds]
    return {
        "requests": sum(one.due for one in rounds),
        "failed": sum(one.due - one.good for one in rounds),
        "wrong": sum(len(one.wrong) for one in rounds),
        "latency": quantiles([t for own in taken for t in own]),
        "p99_ms_of_rounds": [quantiles(own)["p99_ms"] for own in taken if own],
    }


def main() -> int:
    """Measure, print and record; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.serving.swaps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--swaps", type=int, default=100, help="at least (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a round (default: %(default)s)")
    parser.add_argument(
        "--every", type=float, default=1.0, help="seconds between swaps (default: %(default)s)"
    )
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER / "swaps.json", help="record to write into")
    options = parser.parse_args()
    asked = {"seconds": options.seconds, "every": options.every, "rate": options.rate}
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), swaps=options.swaps, **asked)
        aim = "no request fails, p99 with swaps at most twice that without"
        entry = {"aim": aim, **asked, "found": found}
        merge(options.out, "python -m recsys.benchmarks.serving.swaps", "loads", {"sasrec": entry})
        print(json.dumps(found, indent=2))
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
