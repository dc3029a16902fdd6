"""The command line: thin over the library.

Results go to standard output (one JSON object with ``--json``), everything else to standard error.
Exit codes: 0 done, 2 something the user can mend, 130 interrupted.
"""

import os
import sys
import warnings
from typing import Annotated, Any

import typer

from recsys import __version__
from recsys.commands import bench, clock, evaluate, index, prepare, recommend, train
from recsys.errors import RecsysError

app = typer.Typer(
    name="recsys",
    help="Sequential recommendation: train an encoder on an interaction log, ask what comes next.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which help lists them.
index.register(app)
clock.register(app)
app.command("datasets")(prepare.list_datasets)
app.command()(prepare.prepare)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(recommend.recommend)
app.add_typer(bench.bench)


def main() -> None:
    """Run the command line; user errors become one line and exit code 2."""
    warnings.showwarning = _show_warning
    # Threads that spin while they wait starve each other where another process keeps a core busy: training
    # then ran at a twentieth of its speed. Read when torch is loaded, so it has to be set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("Interrupted; a training run goes on with --resume.", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output left, as `| head` does.
        sys.stderr.close()
        raise SystemExit(0) from None


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Print the version if asked."""
    if show:
        print(f"recsys {__version__}")
        raise typer.Exit


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"Warning: {message}", file=sys.stderr)
