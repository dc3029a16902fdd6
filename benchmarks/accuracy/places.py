"""Where a recipe's data and runs lie, and who may work there."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recsys.benchmarks.accuracy.recipes import Recipe, find_items, find_log
from recsys.datasets.prepared.files import read_meta
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.options import PrepareOptions
from recsys.errors import RunError
from recsys.files import lock_on

__all__ = ["locked", "prepared_log"]


def prepared_log(recipe: Recipe, data: Path | None, runs: Path, say: Callable[[str], None]) -> SequenceStore:
    """The recipe's log, prepared in the folder of runs.

    What is there already is opened and needs neither the log nor the libraries that read it, so that runs may
    move to another machine.

    Args:
        recipe: whose log.
        data: as `find_log` takes it.
        runs: folder of prepared logs and runs.
        say: told what is noticed in the log.
    """
    name = recipe.dataset.name
    columns = "-".join(str(value).replace(",", "-") for value in recipe.items.values())
    folder = runs / "prepared" / (f"{name}-{columns}" if columns else name)
    if _is_prepared(folder, recipe):
        return SequenceStore.open(folder)
    from recsys.datasets.preparing.prepare import prepare

    log = find_log(recipe.dataset, data)
    options: Any = {**recipe.dataset.prepare, **recipe.items}
    items = find_items(recipe.dataset, log, data) if recipe.items else None
    return prepare(log, folder, name=name, items=items, notify=say, **options)


def _is_prepared(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds this log, prepared with these options."""
    if not folder.is_dir():
        return False
    meta = read_meta(folder)
    options: Any = {**recipe.dataset.prepare, **recipe.items}
    time_zone = options.pop("time_zone", None)
    wanted = PrepareOptions.of(options, time_zone=time_zone).record()
    same = _without_digests(meta.get("options", {})) == _without_digests(wanted)
    return meta.get("source", {}).get("sha256") == recipe.dataset.sha256 and same


def _without_digests(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options but for the digests of the items, which only who reads their file knows."""
    digests = ("items_sha256", "item_features_sha256")
    return {name: value for name, value in options.items() if name not in digests}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, a file beside it: two processes on one checkpoint would spoil it.

    Raises:
        RunError: another process holds it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock_on(folder.with_name(f".{folder.name}.session"), wait=False))
        except BlockingIOError:
            raise RunError(f"{folder}: another process is at this run") from None
        yield
