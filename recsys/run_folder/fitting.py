"""Training into a run folder, or in memory: a new run, one that replaces another, one that goes on."""

import contextlib
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.given import GivenData
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.items import making_rows
from recsys.encoders.registry import build_encoder
from recsys.errors import ArgumentError, RunError
from recsys.files import sha256_of, user_path
from recsys.run_folder.layout import RunFolder, State, state_of
from recsys.run_folder.model import read_manifest, write_config, write_model
from recsys.run_folder.parents import (
    Parent,
    Succession,
    epochs_of,
    parent_of,
    read_parent,
    refuse_another_parent,
)
from recsys.run_folder.settings import Recipe, Settings, resumed_settings, settings_of
from recsys.run_folder.writing import (
    OVERWRITING,
    RESUMING,
    STARTING,
    copy_of,
    discard,
    named_as,
    publish,
    refuse_occupied,
    refuse_unmovable,
    waiting,
    workplace,
    writing,
)
from recsys.training.callbacks import Callback, run_settings, told
from recsys.training.checkpoint import Progress
from recsys.training.column_inputs import column_inputs
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs
from recsys.training.plots import plot_training
from recsys.training.processes import ALONE, Processes, check_share
from recsys.training.reporting import ConsoleReporter, SilentReporter
from recsys.training.trainer import Trainer
from recsys.training.validating import validation_metrics


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What training gives.

    Attributes:
        encoder: with the best weights.
        store: the data, in the run folder if there is one.
        training: how.
        history: one record per epoch.
        parent: account of the run that it goes on from with other data, or None.
    """

    encoder: SequenceEncoder
    store: SequenceStore
    training: TrainingConfig
    history: list[dict[str, Any]]
    parent: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A training that is about to start or to go on.

    Attributes:
        trainer: where it stands.
        settings: of the run.
        home: the folder that it goes on in.
        whole: nothing is left to train or to write.
    """

    trainer: Trainer
    settings: Settings
    home: RunFolder
    whole: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitting:
    """One call of `fit`.

    Attributes:
        recipe: what to train.
        device: to train on.
        quiet: show nothing of it.
        notify: told what was noticed and chosen.
        callbacks: told of the start, of every epoch and of the end.
        processes: that train together. Process 0 alone writes, and says what it writes; the others read the
            folder that it has begun, and are given no callbacks.
        from_run: folder of the run that goes on with these data, or None.
    """

    recipe: Recipe
    device: torch.device
    quiet: bool
    notify: Callable[[str], None]
    callbacks: Sequence[Callback]
    processes: Processes = ALONE
    from_run: str | Path | None = None

    def in_memory(self, data: GivenData) -> Fitted:
        """Train without a folder; data that have to be prepared lie in one that goes with them."""
        parent, settings = self._beginning()
        with self.processes.agreeing():
            store = _in_scratch(data)
            settings, trainer = self._begun(parent, settings, store, data)
        if len(set(self.processes.values(store.fingerprint))) > 1:
            raise RunError("processes were given different data; give all the same, or train into a folder")
        progress = self._run(trainer, settings)
        return _fitted(trainer, settings, progress)

    def into(self, out: str | Path, data: GivenData, *, resume: bool, overwrite: bool) -> Fitted:
        """Train into a run folder; see the package for what holds of it meanwhile.

        Raises:
            RunError: the folder is taken, is no run or cannot be written, there is nothing to go on from, or
                the run is another one.
        """
        run, processes = RunFolder(user_path(out)), self.processes
        if not resume and self.from_run is None:
            check_share(settings_of(self.recipe).training.accumulate, processes.size)
        if processes.rank:
            return self._follow(run)
        with contextlib.ExitStack() as held:
            with processes.agreeing():
                run = held.enter_context(writing(run))
                # An earlier attempt of the same launch may have begun it.
                if resume or processes.recalls(str(run.path)):
                    begun = self._go_on(run, data, overwrite=overwrite)
                else:
                    begun = self._start(run, data, overwrite=overwrite)
                    processes.recall_later(str(run.path))
            processes.tell({"home": str(begun.home.path), "run": str(run.path)})
            fitted = self._finish(begun, run)
            processes.tell("published")
            return fitted

    def _follow(self, run: RunFolder) -> Fitted:
        """Train as another process than the one that writes: read what that has begun."""
        processes = self.processes
        with processes.agreeing():
            pass
        said = processes.tell(None)
        home, run = RunFolder(Path(said["home"])), RunFolder(Path(said["run"]))
        with processes.agreeing(), named_as(home, run):
            if not home.path.is_dir():
                raise RunError(
                    f"{run.path}: process {processes.rank} does not see the folder that process 0 has begun; "
                    "choose a folder on a disk that all machines share"
                )
            settings = resumed_settings(self.recipe, home, run)
            store = SequenceStore.open(home.data)
            trainer = self._trainer(settings, store, parent_of(home))
            trainer.restore(home.checkpoint)
        progress = self._run(trainer, settings)
        processes.tell(None)
        store.path = run.data
        return _fitted(trainer, settings, progress)

    def _start(self, run: RunFolder, data: GivenData, *, overwrite: bool) -> Begun:
        parent, settings = self._beginning()
        state = state_of(run)
        refuse_occupied(run, state, overwrite=overwrite, resumable=True)
        place = workplace(run, STARTING)
        try:
            with named_as(place, run):
                store = data.put(place.data)
                settings, trainer = self._begun(parent, settings, store, data)
                write_config(place, settings.encoder, settings.training)
                trainer.folder = place.path
                trainer.save_checkpoint()
                for what in (OVERWRITING, RESUMING):
                    discard(run.beside(what), run)
                home = run if state is State.EMPTY else run.beside(OVERWRITING)
                if place.path != home.path:
                    place.path.rename(home.path)
        except BaseException:
            discard(place, run)
            raise
        if home.path == run.path:
            run.mark.unlink()
        return Begun(trainer, settings, home)

    def _go_on(self, run: RunFolder, data: GivenData, *, overwrite: bool) -> Begun:
        state = state_of(run)
        found = waiting(run, OVERWRITING) if overwrite else None
        if found is None and state is State.WHOLE:
            found = waiting(run, RESUMING)
        base = found or run
        if found is None:
            _refuse_nothing_to_go_on(run, state)
        if not overwrite and (left := waiting(run, OVERWRITING)) is not None:
            self.notify(
                f"Training to replace this run was cut short and is kept in {left.path.name}; it goes on "
                "with resume and overwrite together"
            )
        settings = resumed_settings(self.recipe, base, run)
        check_share(settings.training.accumulate, self.processes.size)
        account = parent_of(base)
        if self.from_run is not None:
            refuse_another_parent(run, account, self.from_run)
        store = SequenceStore.open(base.data)
        _refuse_another_log(data, store, run)
        trainer = self._trainer(settings, store, account)
        trainer.restore(base.checkpoint)
        if base is run and state is State.WHOLE:
            if trainer.done and _is_sound(run):
                return Begun(trainer, settings, base, whole=True)
            refuse_unmovable(run)
            base = copy_of(run, RESUMING)
        write_config(base, settings.encoder, settings.training)
        return Begun(trainer, settings, base)

    def _finish(self, begun: Begun, run: RunFolder) -> Fitted:
        """Train in a folder that goes on if it is killed, and make it whole and the run."""
        trainer, settings, home = begun.trainer, begun.settings, begun.home
        store, began = trainer.store, trainer.progress.global_step
        if begun.whole:
            with self.processes.agreeing():
                pass
            return _fitted(trainer, settings, self._run(trainer, settings))
        trainer.folder, store.path = home.path, home.data
        try:
            with self.processes.agreeing():
                pass  # the others read what has been begun
            with named_as(home, run):
                progress = self._run(trainer, settings)
                select = settings.training.select
                plot_training(progress.history, home.plots, loss=trainer.loss_name, select=select)
                write_model(
                    home,
                    trainer.encoder,
                    preset=settings.preset,
                    dataset=store.fingerprint,
                    parent=trainer.notes.get("parent"),
                )
            if home.path != run.path:
                publish(home, run)
        except Exception:
            moved = trainer.progress.global_step > began and np.isfinite(trainer.progress.loss_sum)
            if home.path != run.path and not moved:
                discard(home, run)
            raise
        store.path = run.data
        return _fitted(trainer, settings, progress)

    def _beginning(self) -> tuple[Parent | None, Settings]:
        """What is checked before any data are looked at."""
        parent = None if self.from_run is None else read_parent(self.from_run)
        settings = settings_of(self.recipe) if parent is None else parent.settings_for(self.recipe)
        check_share(settings.training.accumulate, self.processes.size)
        return parent, settings

    def _begun(
        self, parent: Parent | None, settings: Settings, store: SequenceStore, data: GivenData
    ) -> tuple[Settings, Trainer]:
        """The settings on these data, and a trainer that is about to take its first step on them."""
        # Until the data have their place, messages name what was given.
        name, lie = data.name or Path(store.name), store.path
        succession = None if parent is None else Succession.of(parent, store, str(name))
        if parent is None or succession is None:
            settings = settings.on(store, self.device, self.recipe)
        else:
            settings = parent.on(settings, store, self.device)
        store.path = name
        try:
            trainer = self._trainer(settings, store, None if succession is None else succession.record)
            if succession is not None:
                self.notify(succession.hand_over(trainer))
        finally:
            store.path = lie
        return settings, trainer

    def _run(self, trainer: Trainer, settings: Settings) -> Progress:
        said = SilentReporter() if self.quiet else ConsoleReporter(settings.training.select)
        facts = run_settings(trainer.encoder, trainer.store, settings.training, preset=settings.preset)
        with told(self.callbacks, facts, said) as trainer.reporter:
            return trainer.run()

    def _trainer(
        self, settings: Settings, store: SequenceStore, parent: Mapping[str, Any] | None = None
    ) -> Trainer:
        training, rows = settings.training, contextlib.ExitStack()
        if training.shard_items and self.processes.size > 1 and self.from_run is None:
            rows.enter_context(making_rows(self.processes.rank, self.processes.size))
        with rows:
            encoder = build_encoder(
                settings.name,
                store.n_items,
                settings.encoder,
                seed=training.seed,
                features=item_inputs(store),
                columns=column_inputs(store),
            )
        trainer = Trainer(
            encoder.to(self.device),
            store,
            training,
            validate=validation_metrics(store, training, self.processes),
            notes={"encoder": settings.name, "preset": settings.preset}
            | ({} if parent is None else {"parent": dict(parent)}),
            epochs_before=epochs_of(parent),
            processes=self.processes,
        )
        for line in settings.said:
            self.notify(line)
        if not store.has_tests:
            self.notify("No user has a test event after a history: this run will not be tested")
        return trainer


def _in_scratch(data: GivenData) -> SequenceStore:
    """The data, which lie in a folder that goes with them if they have to be prepared."""
    if data.prepared:
        return data.open()
    scratch = tempfile.mkdtemp(prefix="recsys-")
    try:
        store = data.put(Path(scratch) / "data")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(store, shutil.rmtree, scratch, ignore_errors=True)
    return store


def _fitted(trainer: Trainer, settings: Settings, progress: Progress) -> Fitted:
    parent = trainer.notes.get("parent")
    return Fitted(trainer.encoder, trainer.store, settings.training, progress.history, parent)


def _refuse_nothing_to_go_on(run: RunFolder, state: State) -> None:
    if (run.checkpoint / "state.json").exists():
        return
    if state is State.EMPTY:
        raise RunError(f"{run.path}: no checkpoint to go on from; leave resume=True out to start anew")
    raise RunError(
        f"{run.path}: holds {state.value.removesuffix(', without a checkpoint')}, and no checkpoint to go on "
        "from; replace it with overwrite=True, without resume=True, or choose another folder"
    )


def _refuse_another_log(data: GivenData, store: SequenceStore, run: RunFolder) -> None:
    if not data.is_source_of(store):
        raise ArgumentError(
            f"{run.path}: holds a run on other data; go on with the log that it was trained on, or choose "
            "another folder"
        )


def _is_sound(run: RunFolder) -> bool:
    try:
        return sha256_of(run.weights) == read_manifest(run).sha256
    except (OSError, RunError):
        return False
