"""A run that another one goes on from with other data: read, compared, and what becomes of its items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config import to_dict
from recsys.datasets.prepared.item_features import TAGS
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary, user_vocabulary
from recsys.encoders.event_columns import LOCAL_HOUR
from recsys.encoders.registry import registration
from recsys.errors import DataError, RunError
from recsys.files import read_json, user_path
from recsys.run_folder.column_places import column_places
from recsys.run_folder.layout import RunFolder
from recsys.run_folder.model import Manifest, read_manifest, read_settings, require_own, steadily
from recsys.run_folder.settings import Recipe, Settings, inherited_settings
from recsys.training.checkpoint import Progress, load_checkpoint
from recsys.training.growing import Places, begins_by, grown
from recsys.training.identity import Identity, recorded_loss, refuse_another, upgraded
from recsys.training.losses import plan_loss
from recsys.training.neighbours import Bags, neighbour_bags
from recsys.training.trainer import Trainer

__all__ = ["Parent", "Succession", "epochs_of", "parent_of", "read_parent", "refuse_another_parent"]


@dataclass(frozen=True, slots=True, eq=False)
class Parent:
    """A whole run, as far as its training stands.

    Attributes:
        run: its folder.
        manifest: what its ``run.json`` says.
        settings: its own.
        store: the data that it was trained on.
        progress: where it stands.
        tensors: of its checkpoint.
        loss: that it was trained with.
    """

    run: RunFolder
    manifest: Manifest
    settings: Settings
    store: SequenceStore
    progress: Progress
    tensors: dict[str, Tensor]
    loss: str

    def settings_for(self, recipe: Recipe) -> Settings:
        """Its settings for a run that goes on from it, and what was said otherwise.

        Raises:
            ConfigError: an unknown field, or a value of the wrong type.
            RunError: another encoder or preset, or a setting of the encoder that its weights depend on.
        """
        return inherited_settings(recipe, self.run)

    def on(self, settings: Settings, store: SequenceStore, device: torch.device) -> Settings:
        """Settings for a log: its loss stays where "auto" would now be another one."""
        there = plan_loss(settings.training, store.n_items, device).name
        if settings.training.loss != "auto" or there == self.loss:
            return settings
        line = f"The loss stays {self.loss}, with which {self.run.path} was trained; auto is {there} by now"
        training = replace(settings.training, loss=cast("Any", self.loss))
        return replace(settings, training=training, said=(line,))


@dataclass(frozen=True, slots=True, eq=False)
class Succession:
    """A parent beside the log that its successor is trained on.

    Attributes:
        parent: the run that goes on.
        places: of the log's items and tags in the parent's.
        record: the successor's account of its parent, for its manifest and its card.
    """

    parent: Parent
    places: Places
    record: dict[str, Any]

    @classmethod
    def of(cls, parent: Parent, store: SequenceStore, name: str) -> "Succession":
        """Compare a log with the parent's.

        Args:
            parent: the run that goes on.
            store: the log's data, where they lie.
            name: of the log, for messages.

        Raises:
            DataError: it lacks what the parent reads, or has features that the parent does not know.
        """
        _refuse_lacking(parent, store, name)
        items = item_vocabulary(parent.store).encode(item_vocabulary(store).ids).astype(np.int64)
        users = user_vocabulary(parent.store).encode(user_vocabulary(store).ids)
        tags = np.zeros(0, dtype=np.int64)
        if not _with_features(parent) and not (items >= 0).any():
            raise DataError(
                f"{name}: has none of the items of {parent.run.path}; are ids spelled as there? "
                "Else train anew"
            )
        if _with_features(parent):
            tags = _tag_places(parent, store, name)
        columns = column_places(parent.settings.encoder, parent.store, store, name, parent.run.path)
        record = {
            "path": str(parent.run.path),
            "sha256": parent.manifest.sha256,
            "dataset": parent.store.fingerprint,
            "epochs": epochs_of(parent.manifest.parent) + parent.progress.epoch,
            "items": _counted(items, parent.store.n_items),
            "users": _counted(users, parent.store.n_users),
        }
        if columns:
            record["new_values"] = sum(
                columns[table].new for table in columns if table != "user_output.weight"
            )
        places = Places(items=items, items_before=parent.store.n_items, tags=tags, columns=columns)
        return cls(parent, places, record)

    def hand_over(self, trainer: Trainer, bags: Sequence[Bags] | None = None) -> str:
        """Let a trainer of the log go on where the parent stands.

        Args:
            trainer: as it was made.
            bags: what new items start from, where these are their neighbours; None looks for them.

        Returns:
            A line on the items and users: how many of each kind, and what new items start from.

        Raises:
            RunError: the encoder cannot grow.
        """
        encoder, parent = trainer.encoder, self.parent
        by = begins_by(encoder)
        if bags is None:
            bags = neighbour_bags(trainer.store, self.places.known) if by == "neighbours" else []
        tensors = grown(
            parent.tensors,
            trainer.tensors(),
            encoder,
            self.places,
            bags=bags,
            step=parent.progress.global_step,
            decays=(parent.settings.training.ema_decay, trainer.config.ema_decay),
        )
        trainer.start_from(Progress(global_step=parent.progress.global_step), tensors)
        return self._line(by, sum(len(each.items) for each in bags))

    def _line(self, by: str, beside: int) -> str:
        items, users = self.record["items"], self.record["users"]
        new = f"{items['new']:,} new"
        if items["new"]:
            drawn = items["new"] - beside
            parts = [(beside, "the items beside them"), (drawn, "random vectors")]
            if by == "neighbours":
                new += f" ({', '.join(f'{n:,} start from {what}' for n, what in parts if n)})"
            else:
                what = "their features" if by == "features" else "the rows that they share"
                new += f" (they start from {what})"
        values = self.record.get("new_values", 0)
        values = f"; columns: {values:,} new value(s), which start as missing ones" if values else ""
        return (
            f"Goes on from {self.parent.run.path}: items: {items['known']:,} known, {new}, {items['gone']:,} "
            f"gone; users: {users['known']:,} known, {users['new']:,} new, {users['gone']:,} gone" + values
        )


def read_parent(path: str | Path) -> Parent:
    """Read a run that another one is to go on from.

    Raises:
        RunError, DataError: not a whole run, a damaged one, or one without a checkpoint.
    """
    return steadily(RunFolder(user_path(path)), _read)[1]


def parent_of(run: RunFolder) -> dict[str, Any] | None:
    """A run's account of the run that it goes on from, by its checkpoint; None where there is none.

    Raises:
        RunError: the checkpoint's state is damaged.
    """
    account = read_json(run.checkpoint / "state.json").get("notes", {}).get("parent")
    return None if account is None else dict(account)


def refuse_another_parent(run: RunFolder, account: Mapping[str, Any] | None, from_run: str | Path) -> None:
    """Refuse to go on with a run that another run than the one named was the beginning of.

    Raises:
        RunError: it began anew, or from another run; or the one named is no run.
    """
    parent = RunFolder(user_path(from_run))
    # One that was replaced by its own successor has other weights by now.
    same = account is not None and account["path"] == str(parent.path)
    if account is None or not (same or read_manifest(parent).sha256 == account["sha256"]):
        began = "anew" if account is None else f"from {account['path']}"
        raise RunError(
            f"{run.path}: the run there began {began}; resume without from_run=, or choose another folder"
        )


def epochs_of(record: Any) -> int:
    """Epochs of all the runs that a run goes on from, by its account of its parent; 0 where it has none."""
    return int(record["epochs"]) if record else 0


def _read(run: RunFolder, manifest: Manifest) -> Parent:
    encoder, training = read_settings(run, manifest.encoder, manifest.encoder_module)
    store = require_own(run, manifest, SequenceStore.open(run.data))
    path = run.checkpoint / "state.json"
    if not path.exists():
        raise RunError(
            f"{run.path}: has no checkpoint, which training goes on from (a model that was saved from memory "
            "has none); train it with out=, or train anew"
        )
    state = read_json(path)
    try:
        loss = recorded_loss(state)
        asked = Identity(
            encoder={"class": registration(manifest.encoder).encoder.__qualname__, **to_dict(encoder)},
            training=to_dict(training),
            dataset=store.fingerprint,
            loss=loss,
        )
        found = Identity(**upgraded(state, path, asked)["identity"])
    except (KeyError, TypeError, AttributeError):
        raise RunError(f"{path}: not a checkpoint of this project; the file is damaged") from None
    try:
        refuse_another(run.checkpoint, found, asked)
    except RunError:
        raise RunError(f"{run.config}: does not fit the checkpoint; one of them was edited") from None
    progress, tensors = load_checkpoint(run.checkpoint, asked)
    settings = Settings(manifest.encoder, manifest.preset, encoder, training)
    return Parent(run, manifest, settings, store, progress, tensors, loss)


def _with_features(parent: Parent) -> bool:
    return parent.settings.encoder.item_parts != "id"


def _refuse_lacking(parent: Parent, store: SequenceStore, name: str) -> None:
    """Refuse a log that lacks what a model reads, which cannot be changed without training anew."""
    run, config = parent.run.path, parent.settings.encoder
    reads_hours = config.clock != "off" or config.repeat_by == "clock"
    reads_hours |= LOCAL_HOUR in (*config.event_columns, *config.request_columns)
    if not store.has_times and (reads_hours or to_dict(config).get("time_bias")):
        raise DataError(
            f"{name}: the log carries order alone, and {run} reads times; prepare a log with a timestamp "
            "column, or train anew"
        )
    if not store.has_zones and reads_hours:
        raise DataError(
            f"{name}: was prepared without a time zone, and {run} reads local hours; prepare the log with "
            "time_zone=, or train anew"
        )
    if not _with_features(parent):
        return
    there, here = parent.store.item_features, store.item_features
    assert there is not None
    tags, width = (0, 0) if here is None else (here.n_tags, here.vector_width)
    for what, option, before, now in (
        ("tags", "item_tags= or item_words=", there.n_tags, tags),
        ("vectors", "item_vectors=", there.vector_width, width),
    ):
        if before and not now:
            raise DataError(
                f"{name}: has no {what} of items, and {run} makes its items of them; prepare the log with "
                f"{option}"
            )
        if now and not before:
            raise DataError(
                f"{name}: has {what} of items, which {run} does not know; prepare the log without {option}, "
                "or train anew"
            )
    if width != there.vector_width:
        raise DataError(
            f"{name}: its items' vectors have {width} numbers and those of {run} have {there.vector_width}; "
            "prepare the log with vectors of the same model"
        )


def _tag_places(parent: Parent, store: SequenceStore, name: str) -> NDArray[np.int64]:
    """(C,) where each tag of a log is among the parent's, -1 for a new one."""
    if store.item_features is None or not store.item_features.n_tags:
        return np.zeros(0, dtype=np.int64)
    before, now = _tags(parent.store), _tags(store)
    lacking = sorted({column for column, _ in before} - {column for column, _ in now})
    if lacking:
        raise DataError(
            f"{name}: has no tags of the column {lacking[0]!r}, of which {parent.run.path} makes its items; "
            "prepare the log with item_tags= or item_words= as that one was"
        )
    places = {tag: place for place, tag in enumerate(before)}
    return np.array([places.get(tag, -1) for tag in now], dtype=np.int64)


def _tags(store: SequenceStore) -> list[tuple[str, str]]:
    import polars as pl

    frame: pl.DataFrame = pl.read_parquet(store.path / TAGS, glob=False)
    return list(frame.select("column", "name").iter_rows())


def _counted(places: NDArray[Any], before: int) -> dict[str, int]:
    known = int((places >= 0).sum())
    return {"known": known, "new": len(places) - known, "gone": before - known}
