"""`--plugin`: encoders of one's own, on every command that trains or opens a run."""

import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

_ARGUMENTS = {"run", "run_a", "runs"}
"""Names of the arguments by which a command opens runs."""
_OTHERS = {"train", "tune"}
"""Commands that name an encoder."""


class WithPlugins(TyperGroup):
    """The root group: gives each command that may need it the option, behind its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, command in _leaves(self.commands):
            if name in _OTHERS or _ARGUMENTS & {parameter.name for parameter in command.params}:
                command.params.append(_option())


def _leaves(commands: Any) -> Iterator[tuple[str, Any]]:
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        if inner:
            yield from _leaves(inner)
        else:
            yield name, command


def _option() -> Any:
    """The option as Typer makes it, of a command that has no other; its value goes to `_load` alone."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def holder(
        plugin: Annotated[
            list[str] | None,
            typer.Option(
                metavar="MODULE",
                callback=_load,
                is_eager=True,
                help="Module of an encoder of your own, to be imported first; again for another.",
                show_default=False,
            ),
        ] = None,
    ) -> None:
        pass

    option = typer.main.get_command(app).params[0]
    option.expose_value = False
    return option


loaded: ContextVar[tuple[str, ...]] = ContextVar("loaded", default=())
"""Modules that the command at hand has imported, for processes that it starts."""


def _load(value: list[str] | None) -> list[str] | None:
    if value:
        loaded.set(tuple(value))
        from recsys.encoders.registry import load_plugin

        if not {os.getcwd(), ""} & set(sys.path):
            sys.path.insert(0, os.getcwd())  # as `python -m` has it
        for text in value:
            load_plugin(text)
    return value
