"""A side as a child process that answers one request at a time."""

import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recsys.benchmarks.folders import CHECKOUT
from recsys.benchmarks.peers.protocol import EvaluationTask, OurTask, Task

PREPARE_TIMEOUT_S = 900.0
# A slice ends with the step that fills it: a slow peer's single step is what this must cover.
SLICE_GRACE_S = 300.0


class SideError(Exception):
    """A side failed, ended or did not answer; the message is one line."""


class SideProcess:
    """One side, running ``python -m peers.<module>`` in its own environment and folder.

    Args:
        name: how messages and the log file call it.
        python: interpreter of its environment.
        module: module of this package to run.
        folder: its working folder; ``<folder>/stderr.log`` keeps what it says.
        threads: compute threads that its libraries are told to use.
    """

    def __init__(self, name: str, python: Path, module: str, folder: Path, *, threads: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / "stderr.log"
        # Only this package is put on the path, as top-level "peers": the repository's root would show
        # the peers' libraries our folders of other names. Our own side runs the code that this program runs.
        paths = [Path(__file__).resolve().parents[1]]
        if python == own_python() and CHECKOUT is not None:
            paths.append(CHECKOUT)
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        environment |= {"PYTHONPATH": os.pathsep.join(map(str, paths)), "CUDA_VISIBLE_DEVICES": ""}
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
            environment[key] = str(threads)
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [str(python), "-m", f"peers.{module}"],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def prepare(self, task: Task | EvaluationTask | OurTask) -> dict[str, Any]:
        """Load the data and build what works on it; the side's facts."""
        return self.ask({"op": "prepare", "task": asdict(task)}, PREPARE_TIMEOUT_S)

    def train(self, seconds: float, batch_size: int) -> dict[str, Any]:
        """Train one slice; its counts."""
        request = {"op": "train", "seconds": seconds, "batch_size": batch_size}
        return self.ask(request, seconds + SLICE_GRACE_S)

    def evaluate(self, seen: str) -> dict[str, Any]:
        """Rank and measure once with seen items "kept", "removed" or "both"; the time and the metrics."""
        return self.ask({"op": "evaluate", "seen": seen}, SLICE_GRACE_S)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            SideError: the side answered with an error, ended, or did not answer in ``timeout`` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=timeout)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            self.close()
            raise SideError(f"{self.name}: no answer within {timeout:.0f} s; see {self.log}") from None
        if line is None:
            raise SideError(f"{self.name}: the process ended with {self._process.wait()}; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.name}: {answer['error']}; see {self.log}")
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)


def own_python() -> Path:
    """The interpreter that runs this program, for our side."""
    return Path(sys.executable)
