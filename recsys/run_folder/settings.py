"""What a Recommender was told, as the settings of a new run or of one that goes on."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recsys.config import build, convert, nearest, read_toml, to_dict
from recsys.encoders.base import EncoderConfig
from recsys.encoders.registry import (
    canonical_name,
    encoder_config,
    encoder_names,
    preset,
    registration,
)
from recsys.errors import ConfigError, RunError
from recsys.files import read_json, user_path
from recsys.run_folder.layout import RunFolder
from recsys.run_folder.model import read_manifest, read_settings
from recsys.run_folder.writing import OVERWRITING, waiting
from recsys.training.config import TrainingConfig
from recsys.training.identity import may_change, recorded_encoder
from recsys.training.losses import plan_loss

PAIRED = ("gbce", "bce", "bpr")
"""Losses whose targets are not a distribution, so that none of it can be spread."""


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
        left_out: what of the preset gave way to an option, in words.
    """

    name: str
    preset: str
    encoder: EncoderConfig
    training: TrainingConfig
    left_out: tuple[str, ...] = ()

    def on(self, n_items: int, device: torch.device, recipe: Recipe) -> "Settings":
        """These, without a repeat bias of the preset where the loss for so many items samples."""
        given = self.encoder.repeat_bias and "repeat_bias" not in recipe.encoder_options
        if not given or not plan_loss(self.training, n_items, device).sampled:
            return self
        line = "The preset's repeat bias is left out: only the full softmax trains it"
        encoder = dataclasses.replace(self.encoder, repeat_bias=0)
        return dataclasses.replace(self, encoder=encoder, left_out=(*self.left_out, line))


def settings_of(recipe: Recipe) -> Settings:
    """The settings of a new run: the preset's, and what was said otherwise.

    Raises:
        ConfigError: unknown encoder, preset or field, or a value out of range.
    """
    base = preset(recipe.encoder, recipe.preset)
    encoder = {**base.get("encoder", {}), **recipe.encoder_options}
    training = {**base.get("training", {}), "seed": recipe.seed, **recipe.training_options}
    left_out: tuple[str, ...] = ()
    own = "label_smoothing" in recipe.training_options
    if training.get("loss") in PAIRED and not own and training.pop("label_smoothing", 0):
        left_out = (f"The preset's label smoothing is left out: {training['loss']} has none",)
    return Settings(
        canonical_name(recipe.encoder),
        recipe.preset,
        encoder_config(recipe.encoder, encoder),
        build(TrainingConfig, training, where="training"),
        left_out,
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
    name, recorded = _recorded(run)
    its_preset = recorded or recipe.preset
    asked_encoder = canonical_name(recipe.encoder)
    for what, asked, own in (("encoder", asked_encoder, name), ("preset", recipe.preset, its_preset)):
        if asked != own:
            raise RunError(
                f"{label.path}: was made with another {what} ({own!r}, not {asked!r}); resume with the same "
                "one, or choose another folder"
            )
    encoder, training = read_settings(run, name)
    changed: dict[str, Any] = {}
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
            if where == "encoder" or key not in may_change(to_dict(training)):
                raise RunError(
                    f"{label.path}: was made with another {where} configuration ({where}.{key} = {its!r}, "
                    f"not {value!r}); leave the setting out, or choose another folder"
                )
            changed[key] = value
    return Settings(name, its_preset, encoder, dataclasses.replace(training, **changed))


def names_to_go_on_with(path: str | Path, *, overwrite: bool) -> tuple[str, str | None] | None:
    """Names of the encoder and the preset (None where it is not known) that a resume will find.

    Args:
        path: of the run.
        overwrite: whether a replacement that was cut short is meant.

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
