"""Whether so much memory is free: better a line than a machine that swaps or a process that is killed."""

from pathlib import Path

from recsys.errors import DataError

__all__ = ["refuse_more_than_free"]

_INFO = Path("/proc/meminfo")


def refuse_more_than_free(needed: int, what: str) -> None:
    """Refuse to take more memory than the machine has free; machines that do not tell are not asked.

    Args:
        needed: bytes.
        what: that would take them, for the message.

    Raises:
        DataError: less is free.
    """
    free = _free_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"{what} take {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of memory are free: run this on"
            " a machine with more"
        )


def _free_bytes() -> int | None:
    try:
        lines = _INFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found) * 1024
