"""What others count on: public names with parameters and defaults, commands with options and help texts.

`tests/data/public_surface.json` is the record. A change that is meant is recorded by

    python -m tests.test_public_surface

whose difference is read before it is committed: what was there is not taken away.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import recsys

RECORD = Path(__file__).parent / "data" / "public_surface.json"


def _parameters(function: Any) -> list[str]:
    """Each parameter with its kind and default, without annotations, which move with their modules."""
    found = []
    for parameter in inspect.signature(function).parameters.values():
        bare = parameter.replace(annotation=inspect.Parameter.empty)
        found.append(f"{bare.kind.description}: {bare}")
    return found


def _members(kind: type) -> dict[str, Any]:
    members: dict[str, Any] = {"()": _parameters(kind)}
    for name in sorted(dir(kind)):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property):
            members[name] = "property"
        elif isinstance(value, classmethod | staticmethod) or inspect.isfunction(value):
            members[name] = _parameters(getattr(kind, name))
    return members


def _library() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(recsys.__all__):
        value = getattr(recsys, name)
        if inspect.isclass(value):
            found[name] = _members(value)
        elif callable(value):
            found[name] = _parameters(value)
        else:
            found[name] = type(value).__name__
    return found


def _command(command: Any) -> dict[str, Any]:
    """A command's help and parameters; a group's commands as well."""
    found: dict[str, Any] = {"help": inspect.cleandoc(command.help or "")}
    found["parameters"] = {
        parameter.name: {
            "opts": [*parameter.opts, *parameter.secondary_opts],
            "metavar": parameter.metavar,
            "flag": bool(getattr(parameter, "is_flag", False)),
            "default": repr(parameter.default),
            "required": parameter.required,
            "multiple": bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1,
            "help": getattr(parameter, "help", None),
        }
        for parameter in command.params
    }
    commands = getattr(command, "commands", None)
    if commands:
        found["commands"] = {name: _command(commands[name]) for name in sorted(commands)}
    return found


def surface() -> dict[str, Any]:
    """All of it, as JSON can hold it."""
    import typer

    from recsys.commands.app import app

    text = json.dumps({"library": _library(), "command line": _command(typer.main.get_command(app))})
    found: dict[str, Any] = json.loads(text)
    return found


def _differences(then: Any, now: Any, where: str = "") -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            if key not in now:
                found.append(f"{where}/{key}: gone")
            elif key not in then:
                found.append(f"{where}/{key}: new")
            else:
                found += _differences(then[key], now[key], f"{where}/{key}")
        return found
    return [] if then == now else [f"{where}: {then!r} -> {now!r}"]


def test_the_public_surface_is_as_recorded() -> None:
    assert _differences(json.loads(RECORD.read_text(encoding="utf-8")), surface()) == []


if __name__ == "__main__":
    RECORD.write_text(json.dumps(surface(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
