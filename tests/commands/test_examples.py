import shlex
from typing import Any

import pytest
import typer

from recsys.commands.app import app
from recsys.commands.examples import EXAMPLES
from recsys.commands.wording import commands_of

ROOT: Any = typer.main.get_command(app)


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_understood(line: str) -> None:
    words = shlex.split(line.partition(" >")[0])[1:]
    commands = commands_of(ROOT)
    name = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0]
    command = commands["index build" if name == "index" else name]
    rest = words[len(name.split()) :]
    with command.make_context(name, rest, resilient_parsing=False) as context:
        assert not context.args


def test_every_example_is_shown_by_its_command() -> None:
    shown = {name.rsplit(" ", 1)[-1]: command.epilog or "" for name, command in commands_of(ROOT).items()}
    for name, lines in EXAMPLES.items():
        assert all(line in shown[name] for line in lines), name
