"""What a Recommender was told, as the settings of a new run or of one that goes on."""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recsys.config import build, convert, nearest, read_toml, to_dict, written
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import EncoderConfig
from recsys.encoders.registry import (
    canonical_name,
    choices_for,
    encoder_config,
    encoder_names,
    preset,
    registration,
)
from recsys.encoders.suited import LogStatistics
from recsys.errors import ConfigError, RunError
from recsys.files import read_json, user_path
from recsys.run_folder.layout import RunFolder
from recsys.run_folder.model import read_manifest, read_settings
from recsys.run_folder.writing import OVERWRITING, waiting
from recsys.training.config import TrainingConfig
from recsys.training.identity import may_change, recorded_encoder
from recsys.training.log_statistics import log_statistics
from recsys.training.losses import plan_loss

PAIRED = ("gbce", "bce", "bpr", "shown")
"""Losses whose targets are not a distribution, so that none of it can be spread."""

SAMPLING = {"negatives", "negative_sampling", "popularity_power", "shard_items"}
"""Settings of training that a sampled loss alone reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a Recommender was told.

    Attributes:
        encoder, preset: names.
        encoder_options, training_options: what differs from the preset.
        seed: where the training options leave it open.
    """

    encoder: str
    preset: str
    encoder_options: Mapping[str, object]
    training_options: Mapping[str, object]
    seed: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a run.

    Attributes:
        name, preset: of the encoder.
        encoder, training: its configuration.
        said: what of the preset gave way to an option, and what was chosen for the log, in words.
    """

    name: str
    preset: str
    encoder: EncoderConfig
    training: TrainingConfig
    said: tuple[str, ...] = ()

    def on(self, store: SequenceStore, device: torch.device, recipe: Recipe) -> "Settings":
        """These on a log: suited to it, and without a preset's repeat bias where the loss samples.

        Args:
            store: the log.
            device: where it is trained.
            recipe: what was said, which wins over every choice.
        """
        found = self._suited(log_statistics(store), recipe)
        if not found.encoder.repeat_bias or "repeat_bias" in recipe.encoder_options:
            return found
        if plan_loss(found.training, store.n_items, device).sampled:
            line = "The preset's repeat bias is left out: only the full softmax trains it"
        elif found.training.shard_items:
            line = "The preset's repeat bias is left out: training.shard_items does not go with it"
        else:
            return found
        encoder = dataclasses.replace(found.encoder, repeat_bias=0, repeat_by="last")
        return dataclasses.replace(found, encoder=encoder, said=(*found.said, line))

    def _suited(self, log: LogStatistics, recipe: Recipe) -> "Settings":
        encoder, training, said = self.encoder, self.training, list(self.said)
        kept = recipe.encoder_options
        if not encoder.repeat_bias:  # there is nothing to choose for
            kept = {**kept, "repeat_by": encoder.repeat_by}
        for_training = recipe.training_options
        if encoder.item_hashes or SAMPLING & for_training.keys():  # who speaks of samples wants them
            for_training = {**for_training, "loss": training.loss}
        for choice in choices_for(recipe.encoder, recipe.preset, log):
            rest = choice.without(kept, for_training)
            if rest.encoder or rest.training:
                encoder = dataclasses.replace(encoder, **rest.encoder)
                training = dataclasses.replace(training, **rest.training)
                said.append(str(rest))
        return dataclasses.replace(self, encoder=encoder, training=training, said=tuple(said))


def settings_of(recipe: Recipe) -> Settings:
    """The settings of a new run: the preset's, and what was said otherwise.

    Raises:
        ConfigError: unknown encoder, preset or field, or a value out of range.
    """
    base = preset(recipe.encoder, recipe.preset)
    encoder = {**base.get("encoder", {}), **recipe.encoder_options}
    training = {**base.get("training", {}), "seed": recipe.seed, **recipe.training_options}
    said: tuple[str, ...] = ()
    own = "label_smoothing" in recipe.training_options
    if training.get("loss") in PAIRED and not own and training.pop("label_smoothing", 0):
        said = (f"The preset's label smoothing is left out: {training['loss']} has none",)
    return Settings(
        canonical_name(recipe.encoder),
        recipe.preset,
        encoder_config(recipe.encoder, encoder),
        build(TrainingConfig, training, where="training"),
        said,
    )


def resumed_settings(recipe: Recipe, run: RunFolder, label: RunFolder) -> Settings:
    """The settings of a run that goes on: its own, but for how far.

    Args:
        recipe: what was said now.
        run: folder with the configuration and the checkpoint.
        label: the folder to name in messages.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type.
        RunError: another encoder, preset or setting that decides the result, or a damaged configuration.
    """

    def may(where: str, key: str, training: TrainingConfig) -> bool:
        return where == "training" and key in may_change(to_dict(training))

    return _its_own(
        recipe,
        run,
        label,
        may=may,
        same="resume with the same one, or choose another folder",
        leave="leave the setting out, or choose another folder",
    )


LOOSE = (
    "dropout",
    "attention_dropout",
    "item_id_dropout",
    "column_dropout",
    "user_column_dropout",
    "mask_probability",
    "last_mask_probability",
    "causal_probability",
)
"""Settings of encoders that decide how weights are learned, and not what they mean."""


def inherited_settings(recipe: Recipe, run: RunFolder) -> Settings:
    """The settings of a run that goes on from another one with other data: that one's, and what was said.

    Args:
        recipe: what was said now.
        run: the run that goes on.

    Raises:
        ConfigError: an unknown field, or a value of the wrong type.
        RunError: another encoder or preset, or a setting of the encoder that its weights depend on.
    """
    return _its_own(
        recipe,
        run,
        run,
        may=lambda where, key, training: where == "training" or key in LOOSE,
        same="go on with the same one, or train anew without from_run=",
        leave="its weights depend on it: leave the setting out, or train anew without from_run=",
    )


def _its_own(
    recipe: Recipe,
    run: RunFolder,
    label: RunFolder,
    *,
    may: Callable[[str, str, TrainingConfig], bool],
    same: str,
    leave: str,
) -> Settings:
    """A run's own settings, and those of a recipe that may be others.

    Args:
        recipe: what was said now.
        run: folder with the configuration.
        label: the folder to name in messages.
        may: whether a setting may be another one, by section, key and the training so far.
        same: the remedy for another encoder or preset.
        leave: the remedy for a setting that may not be another one.
    """
    name, recorded = _recorded(run)
    its_preset = recorded or recipe.preset
    asked_encoder = canonical_name(recipe.encoder)
    for what, asked, own in (("encoder", asked_encoder, name), ("preset", recipe.preset, its_preset)):
        if asked != own:
            raise RunError(f"{label.path}: was made with another {what} ({own!r}, not {asked!r}); {same}")
    encoder, training = read_settings(run, name)
    changed: dict[str, dict[str, Any]] = {"encoder": {}, "training": {}}
    seed = {"seed": recipe.seed} if recipe.seed else {}
    for where, config, options in (
        ("encoder", encoder, recipe.encoder_options),
        ("training", training, {**seed, **recipe.training_options}),
    ):
        hints = typing.get_type_hints(type(config))
        for key, given in options.items():
            if key not in hints:
                raise ConfigError(f"unknown key {where}.{key}{nearest(key, list(hints))}")
            value, its = convert(given, hints[key], f"{where}.{key}"), getattr(config, key)
            if value == its:
                continue
            if not may(where, key, training):
                raise RunError(
                    f"{label.path}: was made with another {where} configuration ({where}.{key} = "
                    f"{written(its)}, not {written(value)}); {leave}"
                )
            changed[where][key] = value
    return Settings(
        name,
        its_preset,
        dataclasses.replace(encoder, **changed["encoder"]),
        dataclasses.replace(training, **changed["training"]),
    )


def names_to_go_on_with(path: str | Path, *, overwrite: bool = False) -> tuple[str, str | None] | None:
    """Names of the encoder and the preset (None where it is not known) of a run that is to go on.

    Args:
        path: of the run.
        overwrite: whether a replacement of it that was cut short is meant.

    Returns:
        None where there is nothing to go on from.
    """
    run = RunFolder(user_path(path))
    base = (waiting(run, OVERWRITING) if overwrite else None) or run
    if not base.manifest.exists() and not (base.checkpoint / "state.json").exists():
        return None
    return _recorded(base)


def _recorded(run: RunFolder) -> tuple[str, str | None]:
    """Names of the encoder and the preset by which a run was made; None where an early one says none."""
    if run.manifest.exists():
        manifest = read_manifest(run)
        return manifest.encoder, manifest.preset
    state = read_json(run.checkpoint / "state.json")
    candidates: dict[str, Mapping[str, Any]] = {}
    for name in encoder_names():
        try:
            config = encoder_config(name, read_toml(run.config)["encoder"])
        except ConfigError:
            continue
        candidates[name] = {"class": registration(name).encoder.__qualname__, **to_dict(config)}
    found = recorded_encoder(state, candidates)
    if found is None:
        raise RunError(f"{run.config}: does not fit the checkpoint; one of them was edited")
    return found, state.get("notes", {}).get("preset")
