"""Processes below one, the memory that they take, and their end in time."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["below", "exit_code", "memory_of", "own_memory_of", "title_of"]


def below(pid: int) -> list[int]:
    """A process and all that it and its own have started and not lost."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(place.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def memory_of(pid: int) -> int:
    """Bytes of a process, what several share divided among them (proportional set size); 0 if it is gone."""
    return _rollup(pid, "Pss:")


def own_memory_of(pid: int) -> int:
    """Bytes that a process has written to and shares with nobody; 0 if it is gone."""
    return _rollup(pid, "Private_Dirty:")


def _rollup(pid: int, kind: str) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(kind))


def exit_code(process: "subprocess.Popen[Any]", seconds: float) -> int | None:
    """Wait for a process that leads a session of its own.

    Returns:
        Its exit code; None if the time ran out, and it was ended with its children.
    """
    try:
        return process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def title_of(pid: int) -> str:
    """What a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
