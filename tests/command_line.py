"""Calling the command line from tests: in this process, since importing torch anew takes seconds, or in one
of its own."""

import contextlib
import io
import json
import os
import subprocess
import sys
import warnings
from typing import Any

TINY = [
    "--set=encoder.d_model=16",
    "--set=encoder.n_layers=1",
    "--set=encoder.d_ff=16",
    "--set=encoder.max_length=16",
    "--set=training.batch_events=256",
]
"""Options of a model that trains in a moment."""


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Call `main` as the console script does."""
    from recsys.commands.app import main

    out, err, argv, show = io.StringIO(), io.StringIO(), sys.argv, warnings.showwarning
    sys.argv = ["recsys", *map(str, arguments)]
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        finally:
            sys.argv, warnings.showwarning = argv, show
    assert isinstance(code, int)
    return subprocess.CompletedProcess(sys.argv, code, out.getvalue(), err.getvalue())


def call_json(*arguments: object) -> dict[str, Any]:
    """What a command that succeeds prints with ``--json``."""
    result = call(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def start(*arguments: object) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from recsys.commands.app import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
