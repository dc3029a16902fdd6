"""Configuration: frozen dataclasses in, TOML and ``--set key=value`` read, unknown keys refused.

Every configuration class of the project is a frozen, keyword-only, slotted dataclass whose fields
each carry a sentence of documentation. This module knows nothing of what the fields mean; it turns
text into instances and back, with one-line errors. It imports nothing heavy.
"""

import dataclasses
import difflib
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from recsys.errors import ConfigError

T = TypeVar("T")

# RecBole's names for the same thing, accepted in TOML and --set so that a config can be carried over.
# Names whose meaning differs (train_batch_size counts prefix rows there) are left out on purpose.
RECBOLE_ALIASES = {
    "MAX_ITEM_LIST_LENGTH": "encoder.max_length",
    "attn_dropout_prob": "encoder.attention_dropout",
    "d_conv": "encoder.d_conv",
    "d_state": "encoder.d_state",
    "epochs": "training.epochs",
    "expand": "encoder.expand",
    "hidden_dropout_prob": "encoder.dropout",
    "hidden_size": "encoder.d_model",
    "inner_size": "encoder.d_ff",
    "learning_rate": "training.learning_rate",
    "mask_ratio": "encoder.mask_probability",
    "n_heads": "encoder.n_heads",
    "n_layers": "encoder.n_layers",
    "num_layers": "encoder.n_layers",
    "seed": "training.seed",
    "stopping_step": "training.patience",
    "weight_decay": "training.weight_decay",
}

OTHER_NAMES = {
    "batch_size": "training.batch_events",
    "clip_grad_norm": "training.gradient_clip",
    "dropout_prob": "encoder.dropout",
    "dropout_rate": "encoder.dropout",
    "early_stopping": "training.patience",
    "embedding_dim": "encoder.d_model",
    "embedding_size": "encoder.d_model",
    "enable_amp": "training.amp",
    "eval_step": "training.evaluate_every",
    "hidden_dim": "encoder.d_model",
    "hidden_units": "encoder.d_model",
    "l2_reg": "training.weight_decay",
    "loss_function": "training.loss",
    "loss_type": "training.loss",
    "lr": "training.learning_rate",
    "max_epochs": "training.epochs",
    "max_len": "encoder.max_length",
    "max_seq_len": "encoder.max_length",
    "maxlen": "encoder.max_length",
    "n_blocks": "encoder.n_layers",
    "n_epochs": "training.epochs",
    "n_factors": "encoder.d_model",
    "n_negatives": "training.negatives",
    "num_blocks": "encoder.n_layers",
    "num_epochs": "training.epochs",
    "num_heads": "encoder.n_heads",
    "num_hidden_layers": "encoder.n_layers",
    "num_negatives": "training.negatives",
    "random_state": "training.seed",
    "session_max_len": "encoder.max_length",
    "train_batch_size": "training.batch_events",
    "valid_metric": "training.select",
}
"""Names of RecTools, RecBole, SASRec.pytorch and others that are refused with a hint: what they are counted
in, or how a value is written, differs."""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise a one-line ConfigError naming the field, its value and what is allowed, unless it holds."""
    if not condition:
        raise ConfigError(f"{field} = {written(value)} is out of range: it must be {allowed}")


def written(value: object) -> str:
    """A value as a configuration file writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(written(one) for one in value)}]"
    return repr(value)


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint `; did you mean 'x'?` for the closest known word, or the list of known words."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def own_names(section: str, values: Mapping[str, object]) -> dict[str, object]:
    """The settings of a section with RecBole's names mapped to ours, as in TOML.

    Raises:
        ConfigError: a setting is given under both names.
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        other, _, field = RECBOLE_ALIASES.get(key, "").partition(".")
        own = field if other == section else key
        if own in found or (own != key and own in values):
            raise ConfigError(f"{section}.{own} is given twice, as {own} and as {key}")
        found[own] = value
    return found


def _hint(key: str, section: str, known: Sequence[str]) -> str:
    """A hint at what an unknown key may mean; `known` are the keys of the section."""
    place, _, field = (OTHER_NAMES.get(key) or RECBOLE_ALIASES.get(key) or "").partition(".")
    if field and place == section and field in known:
        return f"; did you mean {field!r}?"
    if field and place != section and section in ("encoder", "training"):
        return f"; did you mean '{place}.{field}'?"
    return nearest(key, known)


def convert(value: object, annotation: Any, field: str) -> object:
    """Turn a TOML value, or the text of a ``--set``, into the annotated type, or raise ConfigError."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            if type(None) in arguments:
                return None
            raise ConfigError(f"{field} = {value!r}: a value is needed")
        (annotation,) = (a for a in arguments if a is not type(None))
        return convert(value, annotation, field)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{field} = {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return _names(value, arguments[0], field)
        parts = value.strip("[]()").split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence) or len(parts) != len(arguments):
            raise ConfigError(f"{field} = {value!r}: {len(arguments)} numbers are needed")
        return tuple(convert(p, a, field) for p, a in zip(parts, arguments, strict=True))
    try:
        if annotation is bool:
            if isinstance(value, str):
                return {"true": True, "false": False}[value.strip().lower()]
            if isinstance(value, bool):
                return value
        elif annotation is int and not isinstance(value, bool):
            number = float(str(value))
            if number.is_integer():
                return int(number)
        elif annotation is float and not isinstance(value, bool):
            number = float(str(value))
            if math.isfinite(number):
                return number
        elif annotation is str and isinstance(value, str):
            return value
    except (KeyError, ValueError):
        pass
    kind = annotation.__name__
    raise ConfigError(f"{field} = {value!r} is not {'an' if kind[0] in 'aeiou' else 'a'} {kind}")


def _names(value: Any, annotation: Any, field: str) -> tuple[object, ...]:
    """A tuple of any length; nothing between commas is left out."""
    parts = value
    if isinstance(value, str):
        text = value.strip()
        # A name may end with a bracket of its own.
        parts = (text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text).split(",")
    if not isinstance(parts, Sequence):
        raise ConfigError(f"{field} = {parts!r} is no list: write names with commas between")
    stripped = [part.strip().strip("\"'") if isinstance(part, str) else part for part in parts]
    return tuple(convert(part, annotation, field) for part in stripped if part != "")


def build(cls: type[T], values: Mapping[str, object], *, where: str) -> T:
    """Build a configuration dataclass from a mapping, refusing unknown keys with the nearest name.

    Args:
        cls: a configuration dataclass.
        values: field name to value, as read from TOML, JSON or text.
        where: what to call the place in messages, e.g. ``"encoder"``.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one out of range.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    converted = {}
    for key, value in values.items():
        if key not in names:
            raise ConfigError(f"unknown key {where}.{key}{_hint(key, where, names)}")
        converted[key] = convert(value, hints[key], f"{where}.{key}")
    return cls(**converted)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, tuples as lists, so that JSON and TOML can hold it."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(config).items()
    }


def parameters_of(thing: object, *, deep: bool = True) -> dict[str, Any]:
    """The constructor's parameters of an object that keeps each under its name, as scikit-learn reads them.

    Args:
        thing: the object.
        deep: add the entries of parameters that are mappings, as ``name__key``.
    """
    names = [name for name in inspect.signature(type(thing).__init__).parameters if name != "self"]
    found = {name: getattr(thing, name) for name in names}
    if deep:
        for name in names:
            if isinstance(found[name], Mapping):
                found |= {f"{name}__{key}": value for key, value in found[name].items()}
    return found


def set_parameters(thing: object, values: Mapping[str, object]) -> None:
    """Set parameters by name, or entries of those that are mappings by ``name__key``.

    Raises:
        ConfigError: the constructor has no such parameter, or it cannot hold entries; nothing is then set.
    """
    own = parameters_of(thing, deep=False)
    mappings = [name for name in own if name.endswith("_options")]
    changed: dict[str, Any] = {}
    for name, value in values.items():
        base, nested, key = name.partition("__")
        if base not in own:
            raise ConfigError(f"{type(thing).__name__} has no parameter {base!r}{nearest(base, list(own))}")
        if not nested:
            changed[base] = value
        elif base in mappings:
            changed[base] = {**(changed.get(base, own[base]) or {}), key: value}
        else:
            raise ConfigError(f"parameter {name!r}: {base} has no entries; only {', '.join(mappings)} have")
    for name, value in changed.items():
        setattr(thing, name, value)


def read_toml(path: str | Path) -> dict[str, dict[str, object]]:
    """Read a configuration file into ``{section: {key: value}}``, RecBole's key names mapped to ours.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds a key outside the known sections.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror or error})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from None
    sections: dict[str, dict[str, object]] = {"encoder": {}, "training": {}}
    for key, value in raw.items():
        if isinstance(value, Mapping):
            if key not in sections:
                raise ConfigError(f"{path}: unknown section [{key}]{nearest(key, list(sections))}")
            sections[key] |= value
        else:
            _place(sections, key, value, f"{path}: ")
    return sections


def apply_settings(sections: dict[str, dict[str, object]], settings: Sequence[str]) -> None:
    """Apply ``key=value`` texts in place; a key is ``section.field``, or a RecBole name.

    Raises:
        ConfigError: a text without ``=`` or an unknown section.
    """
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as section.key=value, e.g. training.epochs=20")
        _place(sections, key.strip(), value.strip(), "--set: ")


def _place(sections: dict[str, dict[str, object]], key: str, value: object, prefix: str) -> None:
    section, dot, field = RECBOLE_ALIASES.get(key, key).partition(".")
    if not dot:
        meant = OTHER_NAMES.get(key)
        close = difflib.get_close_matches(key, RECBOLE_ALIASES, n=1, cutoff=0.5)
        hint = "write it as section.key, for example training.epochs"
        if meant or close:
            hint = f"did you mean {meant or close[0]!r}?"
        raise ConfigError(f"{prefix}unknown key {key!r}; {hint}")
    if section not in sections:
        raise ConfigError(f"{prefix}unknown section {section!r}{nearest(section, list(sections))}")
    sections[section][field] = value
