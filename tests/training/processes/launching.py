"""Several processes of one launch, started as a launcher starts them: by the environment alone."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What a launcher sets for one process."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return {
        **os.environ,
        **threads,
        "PYTHONPATH": str(ROOT),
        "MASTER_ADDR": "127.0.0.1",
        **{name: str(value) for name, value in own.items()},
    }


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def launch(size: int, *arguments: str, seconds: float = 240.0) -> list[subprocess.CompletedProcess[str]]:
    """Run ``python ARGUMENTS`` in so many processes, and wait for all.

    Returns:
        What each came to, by rank.
    """
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(started, said, strict=True)
    ]


def all_well(processes: Sequence[subprocess.CompletedProcess[str]]) -> None:
    """Fail with what a process said if one did not end well."""
    for rank, process in enumerate(processes):
        assert process.returncode == 0, f"process {rank}: {process.stderr}"
