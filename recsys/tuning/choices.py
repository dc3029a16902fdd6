"""What a search may vary: for each setting a list of values or a range."""

from collections.abc import Callable, Mapping
from typing import Any

from recsys.errors import ConfigError

__all__ = ["Choices", "read_choices", "sections", "start_within", "suggest"]

Choices = Mapping[str, Any]
"""``section.field`` to a list of values, or to ``{"low", "high", "log"}``."""


def read_choices(raw: Mapping[str, Any], where: str, check: Callable[[str, Any], object]) -> Choices:
    """The choices of the sections [encoder] and [training] of a file.

    Args:
        raw: the file's contents.
        where: the file, for messages.
        check: called with each setting and each listed value or end of a range; raises ConfigError.

    Raises:
        ConfigError: a section is none, a setting is unknown or cannot take one of its values.
    """
    choices: dict[str, Any] = {}
    for section in ("encoder", "training"):
        values = raw.get(section, {})
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where}: {section} must be a section, written [{section}]")
        choices |= {f"{section}.{field}": value for field, value in values.items()}
    for key, values in choices.items():
        ends: list[Any] = []
        if isinstance(values, list):
            ends = values
        elif isinstance(values, Mapping) and set(values) <= {"low", "high", "log"}:
            ends = [values.get("low"), values.get("high")]
        if not ends or None in ends:
            raise ConfigError(
                f"{where}: {key} takes a list of values, or {{ low = ..., high = ..., log = ... }}"
            )
        if isinstance(values, Mapping) and not all(isinstance(end, int | float) for end in ends):
            raise ConfigError(f"{where}: {key} has a range whose ends are not numbers")
        if isinstance(values, Mapping) and (ends[0] > ends[1] or (values.get("log") and ends[0] <= 0)):
            raise ConfigError(f"{where}: {key} has no values from {ends[0]} to {ends[1]}")
        for value in ends:
            check(key, value)
    return choices


def sections(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings by ``section.field`` as sections."""
    parts: dict[str, dict[str, Any]] = {"encoder": {}, "training": {}}
    for key, value in settings.items():
        section, _, field = key.partition(".")
        parts[section][field] = value
    return parts


def start_within(choices: Choices, configuration: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The values that a configuration has of what is searched; None if one of them is no choice."""
    own = {}
    for key, values in choices.items():
        section, _, field = key.partition(".")
        value = configuration[section][field]
        if isinstance(values, list):
            inside = value in values
        else:
            inside = isinstance(value, int | float) and values["low"] <= value <= values["high"]
        if not inside:
            return None
        own[key] = value
    return own


def suggest(trial: Any, key: str, values: Any) -> Any:
    """A value of a setting, drawn by a trial of Optuna."""
    if isinstance(values, list):
        return trial.suggest_categorical(key, values)
    low, high, log = values["low"], values["high"], bool(values.get("log", False))
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=log)
    return trial.suggest_float(key, float(low), float(high), log=log)
