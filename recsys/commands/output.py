"""What the commands share: common options, lists of ids, and where text goes.

Results go to standard output, everything else to standard error.
"""

import csv
import io
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from recsys.commands.wording import as_said
from recsys.console.text import one_line, printable
from recsys.errors import ConfigError

if TYPE_CHECKING:
    from recsys.evaluation.result import EvaluationResult

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.", show_default=False)]

Backend = Annotated[
    str, typer.Option(help="Kernels: auto (compiled for the device), reference (plain PyTorch), ...")
]
Categories = Annotated[
    list[str] | None,
    typer.Option("--category", help="Only items of this category; again for items of any of several."),
]
Context = Annotated[
    list[str] | None,
    typer.Option(
        "--context",
        metavar="COLUMN=VALUE",
        help="What is known of the request or its user: device=phone; again for another.",
    ),
]
Interests = Annotated[
    int,
    typer.Option(
        help="Query vectors per user: the last state, with a clock also without the hour, and centres of "
        "recent ones."
    ),
]


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


def _be_quiet(value: bool) -> bool:
    _quiet.set(value)
    return value


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Say nothing on standard error but warnings and errors.",
        callback=_be_quiet,
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where to compute.")]


class OrBuild(TyperGroup):
    """A group whose command is `build` where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name in front of what belongs to it."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["build", *args]
        return super().parse_args(ctx, args)


def say(text: str) -> None:
    """Print a line on standard error, unless the command is to be quiet."""
    if not _quiet.get():
        print(one_line(as_said(text)), file=sys.stderr)


def tell(text: str) -> None:
    """Print lines of a result on standard output, as they are."""
    print("\n".join(printable(line) for line in text.splitlines()))


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on standard output, in ASCII where that is not UTF-8."""
    from recsys.files import to_json

    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(to_json(value, ascii_only=not encoding.lower().replace("-", "").startswith("utf")))


def print_result(
    result: "EvaluationResult",
    as_json: bool,
    report: dict[str, Any],
    *,
    slices: bool = False,
    lists: bool = False,
) -> None:
    """Print figures, slices and lists' figures if wanted, and protocol as tables, or the report as JSON."""
    if as_json:
        print_json(report)
        return
    tell(result.table())
    if slices:
        tell(result.slice_table())
    if lists:
        tell(result.list_table())
    if result.unbiased is not None:
        tell(result.unbiased.table(result))
    tell(result.describe_protocol())


def pairs(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    """Columns and what is said of them."""
    found = [text.partition("=") for text in texts or []]
    for text, (name, equals, _) in zip(texts or [], found, strict=True):
        if not equals or not name.strip():
            raise ConfigError(f"{option} {text!r}: write it as column=value, for example 'device=phone'")
    names = [name.strip() for name, _, _ in found]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ConfigError(f"{option} names {twice!r} twice: name each column once")
    return [(name.strip(), value.strip()) for name, _, value in found]


def split_ids(text: str, option: str) -> list[str]:
    """Ids of one line with commas between them; those that hold a comma are quoted, as in CSV.

    Args:
        text: the line.
        option: that it was given to.

    Raises:
        ConfigError: a quotation mark is left open.
    """
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except csv.Error:
        raise ConfigError(
            f'{option} {text!r}: a quotation mark is left open; ids with commas are written "a, b",c'
        ) from None
    return [part.strip() for row in rows for part in row if part.strip()]


def read_cutoffs(text: str) -> tuple[int, ...]:
    """Cut-offs as 1,5,10,20.

    Raises:
        ConfigError: something else, or below 1.
    """
    try:
        ks = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--k {text!r}: write cut-offs as 1,5,10,20") from None
    if not ks or min(ks) < 1:
        raise ConfigError(f"--k {text!r}: cut-offs start at 1")
    return ks
