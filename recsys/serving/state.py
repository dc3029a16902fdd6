"""The folder by which a service's processes tell each other what they are at: marks, one failure, metrics."""

import os
from collections.abc import Iterator
from pathlib import Path

SETTINGS = "RECSYS_SERVE_SETTINGS"
"""Environment variable that hands a worker its settings."""
FOLDER = "RECSYS_SERVE_STATE"
"""Environment variable that names the folder."""
SALT = "RECSYS_SERVE_SALT"
"""Environment variable that holds what users' hashes are keyed with."""
FAILED = 2
"""Exit code of a worker that cannot serve, and would not if it were started again."""


class State:
    """The folder, from either side.

    Args:
        folder: that is there, and goes when the service ends.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.metrics = self.folder / "metrics"
        self._failure, self._step = self.folder / "failure", self.folder / "step"
        self._started = self.folder / "started"

    def fail(self, line: str) -> None:
        """Leave word why a worker cannot serve; the first word stays."""
        if not self._failure.exists():
            _write(self._failure, line)

    def failure(self) -> str | None:
        """Why a worker could not serve."""
        return _read(self._failure)

    def step(self, line: str) -> None:
        """Say what a worker that loads is at."""
        _write(self._step, line)

    def current_step(self) -> str | None:
        """What a worker that loads was at last."""
        return _read(self._step)

    def say_ready(self) -> None:
        """Tell that this process takes requests."""
        _write(self.folder / f"ready-{os.getpid()}", "")

    def say_started(self) -> None:
        """Tell that all workers have been ready at the same time."""
        _write(self._started, "")

    def started(self) -> bool:
        """Whether all workers have been ready."""
        return self._started.exists()

    def forget(self, pid: int) -> None:
        """Forget a process that has ended."""
        (self.folder / f"ready-{pid}").unlink(missing_ok=True)

    def ready(self) -> Iterator[int]:
        """Processes that have taken requests and are not forgotten."""
        for mark in self.folder.glob("ready-*"):
            yield int(mark.name.partition("-")[2])


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
