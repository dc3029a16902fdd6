"""Where a recipe's data and runs lie, and who may work there."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.accuracy.recipes import Recipe, find_log
from recsys.datasets.store import SequenceStore
from recsys.errors import RunError

__all__ = ["alone", "prepared_log"]


def prepared_log(recipe: Recipe, data: Path | None, runs: Path, say: Callable[[str], None]) -> SequenceStore:
    """The recipe's log, prepared in the folder of runs; done once.

    Args:
        recipe: whose log.
        data: as `find_log` takes it.
        runs: folder of prepared logs and runs.
        say: told what is noticed in the log.
    """
    from recsys.datasets.prepare import prepare

    folder = runs / "prepared" / recipe.dataset.name
    log = find_log(recipe.dataset, data)
    return prepare(log, folder, name=recipe.dataset.name, notify=say, **recipe.dataset.prepare)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock: two processes on one checkpoint would spoil it.

    Raises:
        RunError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another process is at this run") from None
        yield
