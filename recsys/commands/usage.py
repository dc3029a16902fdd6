"""A command line that was not understood, as one line with a hint for what people type by habit."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

import typer

from recsys.commands.wording import commands_of, options_of
from recsys.config import nearest

UsageError: Any = typer.BadParameter.__mro__[1]
"""Click's, which newer versions of Typer bring along under a name of their own."""

_MEANT = {
    "--model": "--encoder",
    "--algorithm": "--encoder",
    "--output": "--out",
    "--output-dir": "--out",
    "--out-dir": "--out",
    "-o": "--out",
    "--topk": "--k",
    "--top-k": "--k",
    "--n": "--k",
    "-k": "--k",
    "-n": "--k",
    "--num": "--k",
    "--users": "--user",
    "--user-id": "--user",
    "-u": "--user",
    "--item": "--history",
    "--items": "--history",
    "--gpu": "--device cuda",
    "--cuda": "--device cuda",
    "--cpu": "--device cpu",
    "--force": "--overwrite",
    "-f": "--overwrite",
    "--continue": "--resume",
    "--seen": "--include-seen",
    "--whitelist": "--allow",
    "--blacklist": "--deny",
    "--baseline": "--floor",
    "--sep": "--separator",
    "--delimiter": "--separator",
    "--user-col": "--user-column",
    "--item-col": "--item-column",
    "--time-column": "--timestamp-column",
    "--verbose": "",
    "-v": "",
}
"""What other programs call it, and our option; where the command has it."""

_FIRST = {"--data", "--dataset", "--input", "--run", "--log", "--file", "--path", "-i", "-d"}
"""Options of other programs for what our commands take as their first argument."""


def explain(error: Any, arguments: Sequence[str]) -> str:
    """One line for an error of Click: what, a hint, and the page that helps.

    Args:
        error: a `UsageError`.
        arguments: the command line.
    """
    said = str(error.format_message()).strip().rstrip(".")
    context = getattr(error, "ctx", None)
    if context is None:
        return said
    option = getattr(error, "option_name", None)
    hint = _hint(context, option) if option else ""
    if hint:
        # Click has guesses of its own, by spelling alone.
        said = re.sub(r"[.:]?\s*(\(Possible options:.*\)|Did you mean .*)$", "", said)
    elif said.startswith("No such command"):
        word = said.split("'")[1]
        said = f"No such command {word!r}"
        hint = nearest(word, list(context.command.commands))
    elif said.startswith("Missing command"):
        hint = f": {', '.join(context.command.commands)}"
    elif said.startswith("Invalid value"):
        said = _bad_value(error, said, arguments)
    return f"{said}{hint} (see {context.command_path} --help)"


def _bad_value(error: Any, said: str, arguments: Sequence[str]) -> str:
    """What is wrong with the value of an option, and the value."""
    options = getattr(getattr(error, "param", None), "opts", [])
    value = _value(options, arguments)
    if value is None:
        return said
    wanted = said.partition(": ")[2].replace("Input should be ", "must be ")
    if "valid integer" in wanted:
        wanted = "a whole number is needed"
    elif "valid number" in wanted or "valid float" in wanted:
        wanted = "a number is needed"
    return f"{options[0]} {value!r}: {wanted}"


def _value(options: Sequence[str], arguments: Sequence[str]) -> str | None:
    """What the command line gives for an option of these spellings; None if it cannot be told."""
    found = None
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name in options:
            following = arguments[place + 1] if place + 1 < len(arguments) else None
            found = value if equals else following
    return found


def _hint(context: Any, option: str) -> str:
    command = context.command
    options = options_of(command)
    meant = _MEANT.get(option, "")
    if meant and meant.split()[0] in options:
        return f"; {meant} is meant"
    if option in _FIRST:
        first = next((p for p in command.params if p.param_type_name == "argument"), None)
        if first is not None:
            word = (first.metavar or first.name.upper()).strip("[]")
            return f"; {word} is given without an option"
    if "--set" in options and command.name == "train":
        key = _setting(option.lstrip("-").replace("-", "_"))
        if key:
            return f"; write --set {key}=VALUE"
    near = difflib.get_close_matches(option, options, n=1, cutoff=0.75)
    if near:
        return f"; {near[0]} is meant"
    every = commands_of(context.find_root().command)
    others = [f"`recsys {name}`" for name, found in every.items() if option in options_of(found)]
    return f"; it is an option of {' and '.join(others[:2])}" if others else ""


def _setting(name: str) -> str:
    """The key of --set of that name; empty if there is none."""
    from dataclasses import fields

    from recsys.config import RECBOLE_ALIASES
    from recsys.encoders.registry import encoder_names, registration
    from recsys.training.config import TrainingConfig

    if name in RECBOLE_ALIASES:
        return RECBOLE_ALIASES[name]
    name = {"lr": "learning_rate", "batch_size": "batch_events", "embedding_dim": "d_model"}.get(name, name)
    if name in {field.name for field in fields(TrainingConfig)}:
        return f"training.{name}"
    known = {field.name for encoder in encoder_names() for field in fields(registration(encoder).config)}
    return f"encoder.{name}" if name in known else ""
