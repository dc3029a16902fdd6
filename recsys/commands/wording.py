"""The library's remedies in the words of the command line.

The library says what to pass as Python writes it: ``time_unit='ms'``, ``overwrite=True``, ``out=``. A command
says ``--time-unit ms``, ``--overwrite``, ``--out``: one form is made from the other, so that a remedy
is written once and names what the place at hand has. An option that only another command has
is shown with that command.
"""

import re
from contextvars import ContextVar
from typing import Any

# Not inside a word, a path or a quotation: those are the user's.
_ARGUMENT = re.compile(r"""(?<![\w./\['"=@-])([a-z][a-z_]*)=('[^']*'|"[^"]*"|\[[^\]]*\]|[\w.:+@-]*[\w@])?""")

_OTHERWISE = {
    "ks": "--k",
    "from_run": "--from",
    "users": "--user",
    "histories": "--history",
    "exclude_seen": "--include-seen",
    "baseline": "--floor",
    "encoder_options": "--set",
    "training_options": "--set",
}
"""Options whose names are not the argument's."""


def for_command(message: str, command: Any, root: Any) -> str:
    """A message of the library as a command says it.

    Args:
        message: one line.
        command: Click's command that failed, or None.
        root: the group of all commands.
    """

    def translate(found: re.Match[str]) -> str:
        name, value = found[1], (found[2] or "").strip("'\"[]")
        option = f"--{name.replace('_', '-')}"
        if command is None or option not in options_of(command):
            option = _OTHERWISE.get(name, option)
        owners = _owners(option, root)
        if not owners:
            return found[0]
        if value == "False" and option not in _OTHERWISE.values():
            option = option.replace("--", "--no-")
        elif value == "None":
            option = f"no {option}"
        elif value not in ("", "True", "False"):
            option += f" {value!r}" if " " in value else f" {value}"
        if command is None or command in owners.values():
            return option
        named = [name for name in owners if re.search(rf"\b{name}\b", message)]
        return f"{option} (of `recsys {(named or list(owners))[0]}`)"

    return _ARGUMENT.sub(translate, message)


speaking: ContextVar[tuple[Any, Any]] = ContextVar("speaking", default=(None, None))
"""The command at hand and the group of all, for remarks of the library while it runs."""


def as_said(message: str) -> str:
    """A remark of the library as the command at hand says it."""
    command, root = speaking.get()
    return message if root is None else for_command(message, command, root)


def commands_of(root: Any) -> dict[str, Any]:
    """Every command by the words that call it, as in ``index add``; the groups' own are not among them."""
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {sub}": each for sub, each in inner.items()} if inner else {name: command}
    return found


def options_of(command: Any) -> list[str]:
    """All spellings of a command's options."""
    return [name for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")]


def _owners(option: str, root: Any) -> dict[str, Any]:
    """The commands that have an option, those first that make what others read."""
    found = {name: each for name, each in commands_of(root).items() if option in options_of(each)}
    order = ("prepare", "train", "recommend")
    return dict(sorted(found.items(), key=lambda x: order.index(x[0]) if x[0] in order else len(order)))
