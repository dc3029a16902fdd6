"""Options of the commands whose work may go to a distributed engine."""

from typing import Annotated

import typer

from recsys.errors import ConfigError

Engine = Annotated[
    str, typer.Option(metavar="local|ray", help="Who works: this process, or processes of a Ray cluster.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to use: auto (the one this machine is part of) or HOST:PORT; else one is "
        "started on this machine for the call.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="With --engine ray: processes that work; else one a processor or GPU.", min=1),
]


def check_engine(engine: str, address: str | None, workers: int | None) -> bool:
    """Whether a command's work goes to Ray.

    Raises:
        ConfigError: another engine, or options of Ray without it.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine {engine!r}: write local or ray")
    for option, value in (("--address", address), ("--workers", workers)):
        if engine == "local" and value is not None:
            raise ConfigError(f"{option} goes with --engine ray")
    return engine == "ray"
