"""Runs that two processes train, under watch.

    python -m tests.training.processes.runs PLACE RECORD LOG ARGUMENT...

First the run ``PLACE/begun`` goes on, then one is refused, then the command line is called. Every file that
is opened for writing below PLACE and every change of entries there becomes a line of ``RECORD-RANK``.
"""

import os
import sys

import torch

from recsys.errors import ConfigError
from recsys.recommender import Recommender
from tests.training.processes.dying import RECIPE, recipe

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = (
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
)


def watch(place: str, record: str) -> None:
    """Write down what this process changes below a folder."""
    out = os.open(record, os.O_WRONLY | os.O_CREAT)

    def heard(event: str, values: tuple[object, ...]) -> None:
        if event not in CHANGES and not (event == "open" and int(values[2]) & WRITING):  # type: ignore[call-overload]
            return
        paths = [os.fsdecode(path) for path in values[:2] if isinstance(path, str | bytes | os.PathLike)]
        if any(os.path.abspath(path).startswith(place) for path in paths):
            os.write(out, f"{event} {paths}\n".encode())

    sys.addaudithook(heard)


def main(place: str, record: str, log: str, *arguments: str) -> None:
    """Go on, be refused, train."""
    torch.set_num_threads(1)
    watch(place, f"{record}-{os.environ['RANK']}")
    Recommender("sasrec", **recipe(3)).fit(log, out=f"{place}/begun", resume=True)
    refused = {**RECIPE, "training_options": {**RECIPE["training_options"], "accumulate": 3}}
    try:
        Recommender("sasrec", **refused).fit(log, out=f"{place}/refused/run")
    except ConfigError:
        print("refused", file=sys.stderr)
    sys.argv = ["recsys", *arguments]
    from recsys.commands.app import main as command_line

    command_line()


if __name__ == "__main__":
    main(*sys.argv[1:])
