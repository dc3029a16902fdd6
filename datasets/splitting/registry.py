"""Splits by name: a module each, which registers how events are divided and with which options."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from recsys.datasets.schema import nearest
from recsys.datasets.splitting.options import SplitOptions
from recsys.errors import ArgumentError

if TYPE_CHECKING:
    from recsys.datasets.splitting.parts import Division, SortedLog

__all__ = ["divide", "register_split", "split_config", "split_names"]

ConfigType = TypeVar("ConfigType")
Divide = Callable[["SortedLog", Any], "Division"]

_CONFIGS: dict[str, type[Any]] = {}
_DIVIDES: dict[str, Divide] = {}


def register_split(
    name: str, config: type[ConfigType]
) -> "Callable[[Callable[[SortedLog, ConfigType], Division]], Callable[[SortedLog, ConfigType], Division]]":
    """Decorate the function that gives each event of a log its part.

    Args:
        name: by which it is asked for, in `prepare(split=...)` and `--split`.
        config: frozen dataclass of what it takes, with the names of `SplitOptions`' fields; it refuses
            values out of range.

    Raises:
        ArgumentError: the name is taken, or an option is not one of `SplitOptions`.
    """

    def register(
        divide: "Callable[[SortedLog, ConfigType], Division]",
    ) -> "Callable[[SortedLog, ConfigType], Division]":
        if name in _DIVIDES:
            raise ArgumentError(f"split {name!r} is registered already")
        strange = {one.name for one in fields(config)} - {one.name for one in fields(SplitOptions)}  # type: ignore[arg-type]
        if strange:
            raise ArgumentError(f"split {name!r}: {min(strange)} is no option of a split")
        _CONFIGS[name], _DIVIDES[name] = config, divide
        return divide

    return register


def split_names() -> list[str]:
    """All registered names, in order."""
    _load()
    return sorted(_DIVIDES)


def split_config(options: SplitOptions) -> tuple[str, Any]:
    """The split that is asked for and its configuration.

    Own files beside the log make the split "files", and a split column makes it "column".

    Raises:
        ArgumentError: the split is unknown, an option does not belong to it, or a value is out of range.
    """
    name, given = options.split, options.given()
    if name == SplitOptions().split:
        if "valid" in given or "test" in given:
            name = "files"
        elif "split_column" in given:
            name = "column"
    if name not in split_names():
        close = nearest(name, split_names())
        hint = f"did you mean {close!r}?" if close else f"choose {', '.join(split_names())}"
        raise ArgumentError(f"split={name!r} is not known: {hint}")
    taken = {one.name for one in fields(_CONFIGS[name])}
    for option, value in given.items():
        if option not in taken:
            owners = [other for other in split_names() if option in _option_names(other)]
            raise ArgumentError(
                f"{option}={value!r} means nothing with split={name!r}: leave it out, or choose the split"
                f" {' or '.join(owners)}"
            )
    return name, _CONFIGS[name](**given)


def divide(log: "SortedLog", name: str, config: Any) -> "Division":
    """Give each event its part.

    Raises:
        ArgumentError: the log lacks what the split needs.
        DataError: a part would be empty.
    """
    _load()
    return _DIVIDES[name](log, config)


def _option_names(name: str) -> set[str]:
    return {one.name for one in fields(_CONFIGS[name])}


def _load() -> None:
    """Import the modules that register the splits."""
    from recsys.datasets.splitting import (  # noqa: F401
        column,
        k_fold,
        last_n,
        leave_one_out,
        own_files,
        ratio,
        temporal,
    )
