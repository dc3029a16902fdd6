"""Saving a model as a run folder, and writing what belongs to a run's weights."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys.datasets.prepared.link import link_or_copy
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.errors import RunError
from recsys.files import user_path, write_text
from recsys.run_folder.layout import RunFolder, State, state_of
from recsys.run_folder.model import fingerprint, read_manifest, read_run, write_config, write_model
from recsys.run_folder.writing import (
    OVERWRITING,
    RESUMING,
    SAVING,
    discard,
    named_as,
    publish,
    refuse_occupied,
    refuse_unmovable,
    workplace,
    writing,
)
from recsys.training.config import TrainingConfig


def save_run(
    path: str | Path,
    encoder: SequenceEncoder,
    store: SequenceStore,
    training: TrainingConfig,
    *,
    preset: str,
    history: Sequence[Mapping[str, Any]],
    overwrite: bool,
    save_index: Callable[[Path], None] | None,
    parent: Mapping[str, Any] | None = None,
) -> None:
    """Write a run that answers, whole or not at all.

    The run of this very model may be written anew: what belongs to its weights stays.

    Args:
        path: of the folder.
        encoder: with its weights.
        store: the data that it was trained on.
        training: how.
        preset: by which preset.
        history: one record per epoch; a run that is written anew keeps its own.
        overwrite: whether another run may be replaced.
        save_index: writes the index into a folder; None leaves that of the same weights.
        parent: account of the run that it goes on from with other data.

    Raises:
        RunError: the folder is taken or cannot be written.
    """
    with writing(RunFolder(user_path(path))) as run:
        state = state_of(run)
        again = state is State.WHOLE and _is_of(run, encoder, store)
        if again:
            refuse_unmovable(run)
        else:
            refuse_occupied(run, state, overwrite=overwrite, resumable=False)
        place = workplace(run, SAVING)
        try:
            with named_as(place, run):
                link_or_copy(store, place.data)
                write_config(place, encoder.config, training)
                if history and not again:
                    write_text(place.metrics, "".join(json.dumps(record) + "\n" for record in history))
                write_model(place, encoder, preset=preset, dataset=store.fingerprint, parent=parent)
            for what in () if again else (OVERWRITING, RESUMING):
                discard(run.beside(what), run)
            publish(place, run)
        except BaseException:
            if place.mark.exists():
                discard(place, run)
            raise
        # An index knows the folder that it was saved in.
        if save_index is not None:
            save_index(run.index)


@contextmanager
def belonging(path: str | Path, encoder: SequenceEncoder) -> Iterator[str]:
    """Write beside a run's weights what belongs to them, such as a report, as its only writer.

    Yields:
        The sha256 of the weights' file.

    Raises:
        RunError: the run has other weights by now, or another process writes it.
    """
    with writing(RunFolder(user_path(path))) as run:
        kept, _, _ = read_run(run.path)
        if fingerprint(kept) != fingerprint(encoder):
            raise RunError(
                f"{run.path}: another process replaced this run meanwhile; report and index of this one are "
                "not written"
            )
        yield read_manifest(run).sha256


def refuse_another_run(folder: Path, encoder: SequenceEncoder) -> None:
    """Refuse to write an index into the run of other weights, which could not be loaded with it.

    Raises:
        RunError: ``folder`` is the place of a run's index, and the run is another one.
    """
    run = RunFolder(folder.parent)
    if folder == run.index and run.manifest.exists():
        kept, _, _ = read_run(run.path)
        if fingerprint(kept) != fingerprint(encoder):
            raise RunError(f"{folder}: is the place of another run's index; choose another folder")


def _is_of(run: RunFolder, encoder: SequenceEncoder, store: SequenceStore) -> bool:
    """Whether a run has these weights and these data."""
    try:
        kept, _, _ = read_run(run.path)
        return (
            fingerprint(kept) == fingerprint(encoder)
            and SequenceStore.open(run.data).fingerprint == store.fingerprint
        )
    except Exception:  # damaged in whatever way: not this one
        return False
