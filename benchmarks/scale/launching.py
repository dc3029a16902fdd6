"""Processes under torchrun, started and looked at."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from recsys.errors import RunError

__all__ = ["run", "start", "torchrun", "workers"]


def torchrun(size: int, *options: str) -> list[str]:
    """The command that starts so many processes of what follows on this machine.

    Args:
        size: processes.
        options: of torchrun, more.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size)]
    return [*launcher, *(options or ("--standalone",))]


def start(command: Sequence[str], prefix: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
    """Start a command on one thread a process; what it says is kept."""
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*prefix, *command],
        env={**os.environ, **threads, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(command: Sequence[str], **environment: str) -> str:
    """Run a command to its end; its standard output.

    Raises:
        RunError: it failed; the message has the end of what it said.
    """
    process = start(command, **environment)
    out, said = process.communicate()
    if process.returncode:
        raise RunError(f"{' '.join(command)}: exit {process.returncode}; {said[-2000:]}")
    return out


def workers(launcher: int) -> dict[int, int]:
    """Process ids of the processes that a torchrun started, by rank; those that live."""
    found = {}
    for path in Path(f"/proc/{launcher}/task").glob("*/children"):
        for child in path.read_text(encoding="ascii").split():
            try:
                environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            rank = next((entry[5:] for entry in environment if entry.startswith(b"RANK=")), None)
            if rank is not None:
                found[int(rank)] = int(child)
    return found
