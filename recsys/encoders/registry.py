"""Names to encoders: the one place that knows which encoders exist, and where others can join.

An encoder of somebody else's joins by :func:`register_encoder` when its module is imported: by the program,
by `--plugin` on the command line (:func:`load_plugin`), or by an entry point of the group ``recsys.encoders``
of an installed package, whose name is the encoder's and which is imported when that name is asked for.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.config import build, nearest, to_dict
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.encoders.base import EncoderConfig, SequenceEncoder
    from recsys.encoders.event_columns import ColumnInputs
    from recsys.encoders.item_tower import ItemInputs
    from recsys.encoders.suited import Choice, LogStatistics

BUILT_IN = {
    "sasrec": "recsys.encoders.sasrec",
    "bert4rec": "recsys.encoders.bert4rec",
    "mamba": "recsys.encoders.mamba",
}
TUNED = "tuned"
"""The preset that suits itself to the log."""
ENTRY_POINTS = "recsys.encoders"
"""Group of the entry points by which installed packages announce encoders."""


@dataclass(frozen=True, slots=True)
class Registration:
    """An encoder class, its configuration class and its presets.

    ``presets`` maps a preset's name to ``{"encoder": {...}, "training": {...}}``, the values that
    differ from the defaults of the configuration classes. ``suited`` says what the preset ``tuned`` changes
    for a log.
    """

    encoder: "type[SequenceEncoder]"
    config: "type[EncoderConfig]"
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]]
    suited: "Callable[[LogStatistics], Sequence[Choice]] | None" = None


_REGISTRY: dict[str, Registration] = {}


def register_encoder(
    name: str,
    *,
    config: "type[EncoderConfig]",
    presets: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    suited: "Callable[[LogStatistics], Sequence[Choice]] | None" = None,
) -> "Callable[[type[SequenceEncoder]], type[SequenceEncoder]]":
    """Class decorator that makes an encoder known by ``name`` to the engine and the command line.

    Args:
        name: the word users write, e.g. ``"sasrec"``.
        config: its configuration dataclass.
        presets: named starting points; ``"tuned"`` is the default one.
        suited: what ``"tuned"`` changes for a log, by its statistics.

    Raises:
        ConfigError: the name is taken by another class.
    """

    def register(encoder: "type[SequenceEncoder]") -> "type[SequenceEncoder]":
        known = _REGISTRY.get(name)
        if known is not None and known.encoder.__qualname__ != encoder.__qualname__:
            raise ConfigError(f"the encoder name {name!r} is taken by {known.encoder.__qualname__}")
        _REGISTRY[name] = Registration(encoder, config, presets or {TUNED: {}}, suited)
        return encoder

    return register


def encoder_names() -> list[str]:
    """All known encoder names, sorted."""
    return sorted({*BUILT_IN, *_REGISTRY, *_entry_points()})


def registration(name: str) -> Registration:
    """The registration of ``name``; encoders that are built in or installed are imported on first use.

    Args:
        name: as registered, or in other letters and with other separators: ``"SASRec"``, ``"BERT-4-Rec"``.

    Raises:
        ConfigError: no encoder has that name; the message gives the nearest one.
    """
    return _REGISTRY[canonical_name(name)]


def canonical_name(name: str) -> str:
    """The registered spelling of an encoder's name; its module is then imported.

    Raises:
        ConfigError: no encoder has that name, or the package that announces it does not register it.
    """
    if not isinstance(name, str):
        raise ConfigError(f"encoder = {name!r} must be a name; known: {', '.join(encoder_names())}")
    if name in _REGISTRY:
        return name
    known = encoder_names()
    if name not in known:
        alike = [other for other in known if _bare(other) == _bare(name)]
        if len(alike) != 1:
            raise ConfigError(f"unknown encoder {name!r}{nearest(name, known)}")
        (name,) = alike
    if name not in _REGISTRY and name in BUILT_IN:
        importlib.import_module(BUILT_IN[name])
    elif name not in _REGISTRY:
        _load_entry_point(name)
    return name


def load_plugin(text: str) -> None:
    """Import the module of an encoder of one's own, which registers it.

    Args:
        text: ``package.module``, or ``package.module:NAME`` to ask that it holds that name.

    Raises:
        ConfigError: there is no such module or name in it, or importing it fails.
    """
    module, colon, attribute = text.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and module.startswith(error.name or "\0"):
            raise ConfigError(
                f"no module {module!r} to load encoders from: is it installed, or in the current folder?"
            ) from None
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(f"the module {module!r} cannot be imported ({what})") from None
    if colon and not hasattr(found, attribute):
        raise ConfigError(f"the module {module!r} has no {attribute!r}")


def _entry_points() -> dict[str, Any]:
    """What installed packages announce, by encoder name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _load_entry_point(name: str) -> None:
    point = _entry_points()[name]
    load_plugin(point.value.replace(" ", "").partition("[")[0])
    if name not in _REGISTRY:
        raise ConfigError(
            f"{point.value} is announced as the encoder {name!r} but registers none of that name: "
            "its entry point and @register_encoder must say the same"
        )


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def preset(name: str, which: str) -> Mapping[str, Mapping[str, Any]]:
    """The values of preset ``which`` of encoder ``name``.

    Raises:
        ConfigError: unknown encoder or preset.
    """
    presets = registration(name).presets
    if which not in presets:
        raise ConfigError(f"{canonical_name(name)} has no preset {which!r}{nearest(which, list(presets))}")
    return presets[which]


def choices_for(name: str, which: str, log: "LogStatistics") -> "list[Choice]":
    """What preset ``which`` of encoder ``name`` changes for a log; nothing but ``"tuned"`` changes any.

    Raises:
        ConfigError: unknown encoder.
    """
    suited = registration(name).suited
    return [] if which != TUNED or suited is None else list(suited(log))


def encoder_config(name: str, values: Mapping[str, object]) -> "EncoderConfig":
    """The configuration of encoder ``name`` from field values; unknown fields are refused."""
    return build(registration(name).config, values, where="encoder")


def build_encoder(
    name: str,
    n_items: int,
    config: "EncoderConfig",
    *,
    seed: int = 0,
    features: "ItemInputs | None" = None,
    columns: "ColumnInputs | None" = None,
) -> "SequenceEncoder":
    """A freshly initialized encoder on the CPU.

    Args:
        name: registered name.
        n_items: V, the size of the catalog.
        config: its configuration.
        seed: of the weights.
        features: what is known of the items, where ``config.item_parts`` asks for it.
        columns: of the events and requests of the data, where the configuration names some.

    Raises:
        ConfigError: the name or the configuration is another encoder's, or features or columns are missing.
    """
    import torch

    entry = registration(name)
    if not isinstance(config, entry.config):
        needed, given = entry.config.__name__, type(config).__name__
        raise ConfigError(f"{canonical_name(name)} needs a {needed}, got {given}")
    encoder = entry.encoder(config, n_items)
    generator = torch.Generator().manual_seed(seed)
    encoder.initialize(generator)
    if config.item_parts != "id":
        if features is None:
            raise ConfigError(
                f"encoder.item_parts = {config.item_parts!r} needs features of items and the data have none: "
                "prepare the log with item_tags=, item_words= or item_vectors="
            )
        encoder.set_item_features(features, generator)
    encoder.set_columns(columns, generator)
    return encoder


def encoder_name(encoder: "SequenceEncoder") -> str:
    """The registered name of an encoder instance."""
    return registered_name(type(encoder))


def registered_name(kind: "type[SequenceEncoder]") -> str:
    """The name by which an encoder class is registered.

    Raises:
        ConfigError: it is not.
    """
    for name, entry in _REGISTRY.items():
        if kind is entry.encoder:
            return name
    raise ConfigError(f"{kind.__qualname__} is not registered; decorate it with @register_encoder")


def encoder_module(encoder: "SequenceEncoder") -> str | None:
    """The module to import for an encoder that is not built in; None for one that is."""
    module = type(encoder).__module__
    return None if module in BUILT_IN.values() else module


def differing_from_preset(name: str, which: str, values: Mapping[str, object]) -> dict[str, object]:
    """Those of some field values that the preset, over the class's defaults, has otherwise."""
    base = to_dict(encoder_config(name, preset(name, which).get("encoder", {})))
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
    return {key: values[key] for key, value in plain.items() if base.get(key) != value}


def changed_fields(config: "EncoderConfig") -> dict[str, object]:
    """The fields of a configuration that differ from its class's defaults."""
    return {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(config)
        if getattr(config, f.name) != f.default
    }
