"""What the workers of a service agree on: which models are in service, in a small file of a folder of theirs.

The worker that was asked to change something writes the file; the others look at it every second and follow.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.errors import RunError
from recsys.files import lock_on, write_json

FILE = "models.json"

_log = logging.getLogger("recsys.serving.models")


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreed:
    """A name in service, as every worker is to have it.

    Attributes:
        name: by which it is asked.
        path: of the run folder.
        version: that was loaded from it.
        weight: share of the users.
        shadow: percent of requests that it is asked beside another one.
    """

    name: str
    path: str
    version: str
    weight: float
    shadow: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """All names, and how often they have changed."""

    generation: int = 0
    models: tuple[Agreed, ...] = ()


class Agreeing:
    """The file, from any worker.

    Args:
        folder: of this run of the service, and of no other.
        kept: file beside, which outlives it and names the models for the next start; None keeps none.
    """

    def __init__(self, folder: str | Path, kept: str | Path | None = None) -> None:
        self._folder = Path(folder)
        self._kept = None if kept is None else Path(kept)
        self._file = self._folder / FILE
        self._stamp: tuple[int, int] | None = None
        self._last = Agreement()

    def read(self) -> Agreement:
        """What holds now; generation 0 as long as nothing was changed.

        Raises:
            RunError: the file is damaged.
        """
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return Agreement()
        stamp = status.st_mtime_ns, status.st_ino
        if stamp != self._stamp:
            try:
                found = json.loads(self._file.read_text(encoding="utf-8"))
                models = tuple(Agreed(**own) for own in found["models"])
                self._last = Agreement(int(found["generation"]), models)
            except (OSError, ValueError, KeyError, TypeError):
                raise RunError(f"{self._file}: damaged; restart the service") from None
            self._stamp = stamp
        return self._last

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only worker of the service in the block; others wait."""
        with lock_on(self._folder / "changing", wait=True):
            yield

    def change(self, changed: Callable[[tuple[Agreed, ...]], tuple[Agreed, ...]]) -> Agreement:
        """Make another agreement of the one that holds.

        Args:
            changed: the models of the new one from those of the old; empty where nothing was changed before.

        Raises:
            OSError: the folder cannot be written.
        """
        with lock_on(self._folder, wait=True):
            before = self.read()
            new = Agreement(before.generation + 1, changed(before.models))
            models = [asdict(own) for own in new.models]
            write_json(self._file, {"generation": new.generation, "models": models})
            if self._kept is not None:
                try:
                    write_json(self._kept, {"models": models})
                except RunError as error:
                    _log.warning("the next start begins with the models of the command line: %s", error)
        return new
