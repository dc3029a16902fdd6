"""What figures were measured on, for every record."""

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["commit", "stamp"]


def stamp() -> dict[str, Any]:
    """Time, commit and machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": gpu,
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "triton": _version("triton"),
            "numba": _version("numba"),
            # Above 0 with nothing else running, the figures share the machine with somebody.
            "load_average": [round(x, 2) for x in os.getloadavg()],
        },
    }


def commit() -> str:
    """Short hash of the checkout, ``-dirty`` after it when it differs; "unknown" outside git."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
