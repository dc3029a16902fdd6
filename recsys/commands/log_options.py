"""Options of the command line from the dataclasses that declare them, so that each stands in one place."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from recsys.datasets.keywords import keyword

Command = TypeVar("Command", bound=Callable[..., Any])

TimeZone = Annotated[
    str | None,
    typer.Option(
        help="Users' zone, for clocks: America/New_York, +05:30, or column:NAME (such zones, or minutes)."
    ),
]
Items = Annotated[Path | None, typer.Option(help="File with item titles.")]


def options_of(*kinds: type[Any]) -> Callable[[Command], Command]:
    """Decorate a command whose ``**options`` are the fields of some dataclasses: each becomes an option.

    Args:
        kinds: dataclasses whose fields carry the sentence for `--help`.
    """

    def declare(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        added = [_option(one, typing.get_type_hints(kind)) for kind in kinds for one in fields(kind)]
        # The flags that every command has stay last.
        last = next((place for place, p in enumerate(own) if p.name in ("overwrite", "as_json")), len(own))
        parameters = [*own[:last], *added, *own[last:]]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        hints = {p.name: p.annotation for p in added}
        command.__annotations__ = {**command.__annotations__, **hints}
        return command

    return declare


def chosen(options: Mapping[str, Any], *kinds: type[Any]) -> dict[str, Any]:
    """The options that differ from their defaults."""
    defaults = {one.name: one.default for kind in kinds for one in fields(kind)}
    return {name: value for name, value in options.items() if value != defaults.get(name)}


def _option(declared: Any, hints: dict[str, Any]) -> inspect.Parameter:
    kind = hints[declared.name]
    if kind is Any:  # a path or, in Python, a frame
        kind = str | None
    assert isinstance(kind, type | types.UnionType)
    annotation = Annotated[kind, typer.Option(help=declared.metadata["help"])]  # type: ignore[valid-type]
    return keyword(declared).replace(annotation=annotation, kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
