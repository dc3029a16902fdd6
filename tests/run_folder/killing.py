"""`kill -9` at a run folder's writes: what is left is the old or the new, and goes on.

    python -m tests.run_folder.killing FOLDER [STEP]

Every trial is a child that is forked before polars has threads, and kills itself at its n-th write; another
looks at what is left and goes on. With a step of 1 every write of every event is tried.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.given import given_data
from recsys.run_folder.fitting import Fitting
from recsys.run_folder.layout import State
from recsys.training.plots import plot_training
from tests.run_folder.histories import ENCODERS, World, dying, tiny

EVENTS: dict[str, Callable[[World], None]] = {
    "fit": lambda world: world.fit(tiny("sasrec", 2), world.logs["a"][0]),
    "overwrite": lambda world: world.fit(tiny("mamba", 2), world.logs["b"][1], overwrite=True),
    "resume": lambda world: world.fit(tiny("sasrec", 3), world.logs["a"][0], resume=True),
    "save": lambda world: world.models[0].save(world.run.path, overwrite=True),
    "report": lambda world: world.report(),
}
"""What dies; all but the first find a whole run of log a."""


def _child(act: Callable[[], None]) -> int:
    """Run in a forked child; its wait status."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            act()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    return os.waitpid(process, 0)[1]


def _world(folder: Path) -> World:
    folder.mkdir(parents=True, exist_ok=True)
    return World(folder, 0)


def _begin(folder: Path, name: str) -> World:
    world = _world(folder)
    if name != "fit":
        world.fit(tiny("sasrec", 1), world.logs["a"][0])
        world.report()
    if name == "save":
        other = tiny("mamba", 1).fit(world.logs["b"][2])
        world.models = [other]
    return world


def _die(folder: Path, name: str, at: int) -> None:
    world = _begin(folder, name)
    (folder / "before").write_text(world.look().weights or "")
    with dying(at, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        EVENTS[name](world)
    (folder / "after").write_text("done")


def _look_and_go_on(folder: Path, name: str) -> None:
    world = _world(folder)
    found, before = world.look(), (folder / "before").read_text()
    if name == "fit":
        assert found.state is not State.BEGUN
        model = tiny("sasrec", 2)
        world.fit(model, world.logs["a"][0], resume=found.state is not State.EMPTY)
    else:
        assert found.state is State.WHOLE, found
        if name in ("report", "resume"):
            assert found.log == "a"
        if name == "report":
            assert found.weights == before
        log, encoder = found.log or "", found.encoder or ""
        on = world.run.checkpoint.is_dir()
        world.fit(tiny(encoder, 4), world.logs[log][3], resume=on, overwrite=not on)
    assert world.look().state is State.WHOLE


def _prepare(folder: Path) -> None:
    _world(folder)


def _warm_up(folder: Path) -> None:
    """Load what every child would load: kernels and the library of pictures, and nothing of polars."""
    assert _child(lambda: _prepare(folder)) == 0
    store = SequenceStore.open(folder / "prepared-a")
    for name in ENCODERS:
        fitting = Fitting(
            recipe=tiny(name, 1)._recipe(),
            device=torch.device("cpu"),
            quiet=True,
            notify=print,
            callbacks=(),
        )
        fitted = fitting.in_memory(given_data(store, None, None))
        plot_training(fitted.history, folder / "plots")


def main(folder: Path, step: int) -> int:
    """Try them all; the number of deaths."""
    torch.set_num_threads(1)
    _warm_up(folder / "warm")
    deaths = 0
    for name in EVENTS:
        at = 1
        while True:
            place = folder / f"{name}-{at}"
            status = _child(lambda place=place, name=name, at=at: _die(place, name, at))  # type: ignore[misc]
            if status == 0:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL, (name, at)
            deaths += 1
            status = _child(lambda place=place, name=name: _look_and_go_on(place, name))  # type: ignore[misc]
            assert status == 0, f"killed at write {at} of {name}: see {place}"
            shutil.rmtree(place)
            at += step
    print(f"{deaths} deaths")
    return deaths


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
