"""Names to encoders: the one place that knows which encoders exist, and where others can join."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.config import build, nearest
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.base import EncoderConfig, SequenceEncoder

BUILT_IN = {
    "sasrec": "recsys.encoders.sasrec",
    "bert4rec": "recsys.encoders.bert4rec",
    "mamba": "recsys.encoders.mamba",
}


@dataclass(frozen=True, slots=True)
class Registration:
    """An encoder class, its configuration class and its presets.

    ``presets`` maps a preset's name to ``{"encoder": {...}, "training": {...}}``, the values that
    differ from the defaults of the configuration classes.
    """

    encoder: "type[SequenceEncoder]"
    config: "type[EncoderConfig]"
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]]


_REGISTRY: dict[str, Registration] = {}


def register_encoder(
    name: str,
    *,
    config: "type[EncoderConfig]",
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> "Callable[[type[SequenceEncoder]], type[SequenceEncoder]]":
    """Class decorator that makes an encoder known by ``name`` to the engine and the command line.

    Args:
        name: the word users write, e.g. ``"sasrec"``.
        config: its configuration dataclass.
        presets: named starting points; ``"tuned"`` is the default one.

    Raises:
        ConfigError: the name is taken by another class.
    """

    def register(encoder: "type[SequenceEncoder]") -> "type[SequenceEncoder]":
        known = _REGISTRY.get(name)
        if known is not None and known.encoder.__qualname__ != encoder.__qualname__:
            raise ConfigError(f"the encoder name {name!r} is taken by {known.encoder.__qualname__}")
        _REGISTRY[name] = Registration(encoder, config, presets or {"tuned": {}})
        return encoder

    return register


def encoder_names() -> list[str]:
    """All known encoder names, sorted."""
    return sorted({*BUILT_IN, *_REGISTRY})


def registration(name: str) -> Registration:
    """The registration of ``name``; built-in encoders are imported on first use.

    Raises:
        ConfigError: no encoder has that name; the message gives the nearest one.
    """
    if name not in _REGISTRY and name in BUILT_IN:
        importlib.import_module(BUILT_IN[name])
    if name not in _REGISTRY:
        raise ConfigError(f"unknown encoder {name!r}{nearest(name, encoder_names())}")
    return _REGISTRY[name]


def preset(name: str, which: str) -> Mapping[str, Mapping[str, Any]]:
    """The values of preset ``which`` of encoder ``name``.

    Raises:
        ConfigError: unknown encoder or preset.
    """
    presets = registration(name).presets
    if which not in presets:
        raise ConfigError(f"{name} has no preset {which!r}{nearest(which, list(presets))}")
    return presets[which]


def encoder_config(name: str, values: Mapping[str, object]) -> "EncoderConfig":
    """The configuration of encoder ``name`` from field values; unknown fields are refused."""
    return build(registration(name).config, values, where="encoder")


def build_encoder(name: str, n_items: int, config: "EncoderConfig", *, seed: int = 0) -> "SequenceEncoder":
    """A freshly initialized encoder on the CPU.

    Args:
        name: registered name.
        n_items: V, the size of the catalog.
        config: its configuration.
        seed: of the weights.
    """
    import torch

    entry = registration(name)
    if not isinstance(config, entry.config):
        raise ConfigError(f"{name} needs a {entry.config.__name__}, got {type(config).__name__}")
    encoder = entry.encoder(config, n_items)
    encoder.initialize(torch.Generator().manual_seed(seed))
    return encoder


def encoder_name(encoder: "SequenceEncoder") -> str:
    """The registered name of an encoder instance."""
    for name, entry in _REGISTRY.items():
        if type(encoder) is entry.encoder:
            return name
    raise ConfigError(f"{type(encoder).__qualname__} is not registered; decorate it with @register_encoder")


def changed_fields(config: "EncoderConfig") -> dict[str, object]:
    """The fields of a configuration that differ from its class's defaults."""
    return {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if getattr(config, f.name) != f.default
    }
