"""Random lives of one run folder: fit, resume, overwrite, save, report, refusals and deaths at any write.

What may be asked of the folder after each event is written down here, and nowhere in terms of the code. A
death is simulated in the process: from one write on, no write of its happens any more, cleaning up included.
"""

import contextlib
import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

import recsys
from recsys import Recommender
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import RecsysError
from recsys.files import sha256_of, write_json
from recsys.run_folder import RunFolder, writing
from recsys.run_folder.keeping import belonging
from recsys.run_folder.layout import State, state_of
from recsys.run_folder.writing import OVERWRITING, RESUMING, waiting

ENCODERS = ("sasrec", "mamba")
SIZES: dict[str, Any] = {"d_model": 8, "n_layers": 1, "max_length": 8}
WRITES = ("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "link", "fsync", "utime")


class Killed(BaseException):
    """The process is dead: nothing that it does after this counts."""


def _raise() -> None:
    raise Killed


@contextlib.contextmanager
def dying(at: int, die: Callable[[], None] = _raise) -> Iterator[list[int]]:
    """Die at the write of this number, counted from 1; yields the count so far."""
    count = [0]

    def wrapped(write: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] >= at:
                die()
            return write(*arguments, **options)

        return tried

    kept = {name: getattr(os, name) for name in WRITES}
    exchange = writing._exchange
    try:
        for name, write in kept.items():
            setattr(os, name, wrapped(write))
        writing._exchange = wrapped(exchange)
        yield count
    finally:
        for name, write in kept.items():
            setattr(os, name, write)
        writing._exchange = exchange


def tiny(encoder: str, epochs: int) -> Recommender:
    """A model whose epoch takes milliseconds."""
    training = {"epochs": epochs, "batch_events": 64, "amp": False, "prefetch": 0}
    return Recommender(encoder, encoder_options=SIZES, training_options=training, index="exact")


@dataclass(frozen=True)
class Life:
    """What a folder is known to hold.

    Attributes:
        state: of the folder.
        log, encoder: names; None for no run.
        weights: digest of a whole run's.
        epochs: trained.
    """

    state: State
    log: str | None = None
    encoder: str | None = None
    weights: str | None = None
    epochs: int = 0


class World:
    """Two logs in several spellings, and a run folder with what is expected of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.run = RunFolder(folder / "runs" / "run")
        self.logs = {name: self._log(name, number) for number, name in enumerate("ab")}
        self.events: list[str] = []
        self.models: list[Recommender] = []

    def _log(self, name: str, number: int) -> list[Any]:
        rng = random.Random(number)
        rows = [
            (
                f"{name}{user}",
                f"{name.upper()}{(user + 2 * place + rng.randrange(2)) % 9}",
                1000 * user + place,
            )
            for user in range(8)
            for place in range(6)
        ]
        frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        file = self.folder / f"{name}.csv"
        frame.write_csv(file)
        store = recsys.prepare(file, self.folder / f"prepared-{name}")
        return [file, store.path, store, frame]

    def step(self) -> None:
        """One event, and whether what is there then is what may be."""
        before, bytes_before = self.look(), self.contents()
        act, allowed, what = self._choose(before)
        at = self.rng.randrange(1, 90) if self.rng.random() < 0.4 else 10**9
        self.events.append(f"{what} (dies at write {at})" if at < 10**9 else what)
        outcome, said = "done", ""
        with dying(at):
            try:
                act()
            except Killed:
                outcome = "killed"
            except RecsysError as error:
                outcome, said = "refused", str(error)
        after = self.look()
        if outcome == "refused":
            assert not allowed, f"{what} was refused: {said}"
            assert "\n" not in said, said
            assert self.contents() == bytes_before, "a refusal changed something"
        elif outcome == "killed":
            self._check_killed(before, after, allowed)
        else:
            assert allowed, f"{what} was not refused"
            assert after.state is State.WHOLE
            hidden = sorted(path.name for path in self.run.path.parent.iterdir() if path != self.run.path)
            assert set(hidden) <= {f".run.{OVERWRITING}", f".run.{RESUMING}"}, hidden

    def _check_killed(self, before: Life, after: Life, allowed: bool) -> None:
        if before.state is State.WHOLE and after != before:
            assert allowed, "a call that had to be refused changed the run"
            assert after.state is State.WHOLE, "a whole run was lost"
        if before.state is State.UNFINISHED:
            assert after.state in (State.UNFINISHED, State.WHOLE), "an unfinished run was lost"

    def _choose(self, now: Life) -> tuple[Callable[[], Any], bool, str]:
        rng = self.rng
        log, encoder, epochs = rng.choice("ab"), rng.choice(ENCODERS), rng.randrange(1, 4)
        if now.log is not None and rng.random() < 0.6:
            log, encoder = now.log, now.encoder or encoder
        data = rng.choice(self.logs[log])
        model = tiny(encoder, epochs)
        name = f"{log}, {encoder}, {epochs} epochs, {type(data).__name__}"
        kind = rng.choice(("fit", "overwrite", "resume", "resume", "both", "save", "report"))
        if kind == "fit":
            return lambda: self.fit(model, data), now.state is State.EMPTY, f"fit {name}"
        if kind == "overwrite":
            return lambda: self.fit(model, data, overwrite=True), True, f"overwrite by {name}"
        if kind in ("resume", "both"):
            target = self.resumed(now, both=kind == "both")
            allowed = target is not None and target == (log, encoder)
            return (
                lambda: self.fit(model, data, resume=True, overwrite=kind == "both"),
                allowed,
                f"{kind} {name}",
            )
        if kind == "save" and self.models:
            other, overwrite = rng.choice(self.models), rng.random() < 0.5
            again = now.weights is not None and now.weights == _digest(other) and now.log == _log_of(other)
            # A model whose own data were replaced cannot bring them.
            free = (now.state is State.EMPTY or again or overwrite) and _lies(other)
            return (
                lambda: other.save(self.run.path, overwrite=overwrite),
                free,
                f"save, overwrite={overwrite}",
            )
        if now.state is State.WHOLE:
            return self.report, True, "report"
        return lambda: recsys.load(self.run.path), False, "load"

    def resumed(self, now: Life, *, both: bool) -> tuple[str, str] | None:
        """Log and encoder with which a resume has to succeed."""
        place = waiting(self.run, OVERWRITING) if both else None
        if place is None and now.state is State.WHOLE:
            place = waiting(self.run, RESUMING)
        if place is None:
            if not (self.run.checkpoint / "state.json").exists() or now.log is None:
                return None
            return now.log, now.encoder or ""
        notes = json.loads((place.checkpoint / "state.json").read_text())["notes"]
        return _log_in(place), notes["encoder"]

    def fit(self, model: Recommender, data: Any, **options: Any) -> None:
        """Fit, and keep the model to be saved elsewhere."""
        model.fit(data, out=self.run.path, **options)
        self.models = [*self.models[-3:], model]

    def report(self) -> None:
        """What the command writes after training."""
        model = recsys.load(self.run.path)
        with belonging(self.run.path, model.encoder_) as digest:
            write_json(self.run.report, {"model_sha256": digest})
            model.save_index(self.run.index)

    def contents(self) -> dict[str, str]:
        """Every file of the run and of training that was cut short beside it, by digest."""
        found: dict[str, str] = {}
        for place in (self.run, waiting(self.run, OVERWRITING), waiting(self.run, RESUMING)):
            if place is not None and place.path.is_dir():
                for file in sorted(place.path.rglob("*")):
                    if file.is_file() and file.name != self.run.mark.name:
                        found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found

    def look(self) -> Life:
        """What the folder holds; all that it says of itself has to be true."""
        run = self.run
        state = State.EMPTY
        if run.path.exists() and {path.name for path in run.path.iterdir()} - {run.mark.name}:
            state = state_of(run)
        if state is State.EMPTY:
            return Life(state)
        assert state in (State.WHOLE, State.UNFINISHED), state
        log = _log_in(run)
        if state is State.UNFINISHED:
            notes = json.loads((run.checkpoint / "state.json").read_text())["notes"]
            return Life(state, log, notes["encoder"])
        manifest = json.loads(run.manifest.read_text())
        model = recsys.load(run.path)
        assert manifest["sha256"] == sha256_of(run.weights)
        assert manifest["dataset"] == model.store_.fingerprint
        answer = model.recommend(users=[f"{log}3"], k=2, exclude_seen=False)
        assert all(item.startswith(log.upper()) for item in answer["item_id"])
        if run.report.exists():
            assert json.loads(run.report.read_text())["model_sha256"] == manifest["sha256"]
        epochs = 0
        if (run.checkpoint / "state.json").exists() and run.metrics.exists():
            epochs = json.loads((run.checkpoint / "state.json").read_text())["progress"]["epoch"]
            assert len(run.metrics.read_text().splitlines()) == epochs
        return Life(state, log, manifest["encoder"], _digest(model), epochs)


def _digest(model: Recommender) -> str:
    digest = hashlib.sha256()
    for tensor in model.encoder_.state_dict().values():
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _lies(model: Recommender) -> bool:
    """Whether the data of a model are where they were."""
    try:
        return SequenceStore.open(model.store_.path).fingerprint == model.store_.fingerprint
    except RecsysError:
        return False


def _log_of(model: Recommender) -> str:
    return str(model._names.users.ids[0])[0]


def _log_in(run: RunFolder) -> str:
    return str(pl.read_parquet(run.data / "users.parquet")["user_id"][0])[0]


def live(folder: Path, seed: int, steps: int = 7) -> None:
    """One history; what goes wrong is told with the events before."""
    world = World(folder, seed)
    try:
        for _ in range(steps):
            world.step()
    except Exception as error:
        raise AssertionError(f"history {seed}: {world.events}: {error!r}") from error
