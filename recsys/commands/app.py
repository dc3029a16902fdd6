"""The command line: thin over the library.

Results go to standard output (one JSON object with ``--json``), everything else to standard error.
Exit codes: see `recsys.commands.failures`.
"""

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import Annotated, Any

import typer

from recsys import __version__
from recsys.commands import (
    bench,
    clock,
    compare,
    doctor,
    evaluate,
    events,
    imitate,
    index,
    prepare,
    recommend,
    score,
    serve,
    train,
    tune,
    warm_up,
)
from recsys.commands.examples import show_examples
from recsys.commands.failures import ending_on_signals, exit_code
from recsys.commands.plugins import WithPlugins
from recsys.commands.usage import UsageError
from recsys.commands.wording import as_said, speaking
from recsys.console.streams import ReaderLeftError, standard_streams
from recsys.console.text import one_line
from recsys.errors import RecsysError

app = typer.Typer(
    name="recsys",
    cls=WithPlugins,
    help="Sequential recommendation: train an encoder on an interaction log, ask what comes next.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which help lists them.
index.register(app)
app.command()(score.score)
clock.register(app)
app.command("datasets")(prepare.list_datasets)
app.command()(prepare.prepare)
app.command()(imitate.imitate)
app.command()(train.train)
app.command()(tune.tune)
app.command()(evaluate.evaluate)
app.command()(compare.compare)
app.command()(recommend.recommend)
serve.register(app)
events.register(app)
app.command("warm-up")(warm_up.warm_up)
app.command()(doctor.doctor)
app.add_typer(bench.bench)
show_examples(app)


def main() -> None:
    """Run the command line: whatever happens becomes one line and an exit code."""
    # Threads that spin while they wait starve each other where another process keeps a core busy: training
    # then ran at a twentieth of its speed. Read when torch is loaded, so it has to be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "_RECSYS_COMPLETE" in os.environ:
        app(prog_name="recsys")  # a shell asks how a word goes on
    code, root = 0, typer.main.get_command(app)
    try:
        with warnings.catch_warnings(), standard_streams(), ending_on_signals(), _few_collections():
            warnings.showwarning = _show_warning
            # In a context of its own: what a command sets for itself does not outlive it.
            code = copy_context().run(_run, root, sys.argv[1:])
    except ReaderLeftError:
        pass
    except (RecsysError, OSError) as error:
        code = exit_code(error, root)
    raise SystemExit(code)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for garbage seldom, and not at all when the process ends.

    Most of what a command makes are the modules that it imports, which stay: looking through them again and
    again took half of the processor time of an answer.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    _freeze_at_exit()
    try:
        yield
    finally:
        gc.set_threshold(*before)


@cache
def _freeze_at_exit() -> None:
    atexit.register(gc.freeze)


def _run(root: Any, arguments: list[str]) -> int:
    """Run a command and return its exit code.

    Not by Click's own `main`, which has other ideas of exit codes and of what to say.
    """
    reached = _reached(root, arguments)
    speaking.set((reached, root))
    try:
        with root.make_context("recsys", list(arguments)) as context:
            root.invoke(context)
    except SystemExit:
        raise
    except BaseException as error:
        return exit_code(error, root, reached, arguments)
    return 0


def _reached(command: Any, arguments: list[str]) -> Any:
    """The command that the arguments name, as far as they name one."""
    for word in arguments:
        inner = getattr(command, "commands", {})
        if not inner:
            break
        if not word.startswith("-"):
            command = inner.get(word) or inner.get("build") or command
    return command


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Print the version if asked."""
    if show:
        print(f"recsys {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        known = ", ".join(context.command.commands)  # type: ignore[attr-defined]
        raise UsageError(f"name a command: {known}", ctx=context)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"Warning: {one_line(as_said(str(message)))}", file=sys.stderr)
