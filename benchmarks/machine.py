"""What figures were measured on, for every record."""

import datetime
import os
import platform
import subprocess
from typing import Any

from recsys.benchmarks.folders import CHECKOUT
from recsys.diagnosis.environment import processor_name

__all__ = ["commit", "stamp"]


def stamp() -> dict[str, Any]:
    """Time, commit and machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": processor_name(),
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
    """The commit, with a mark if the tree differs from it; of a copy without git, what RECSYS_COMMIT says.

    Installed, the version: what git finds there is the commit of whatever the environment lies in.
    """
    told = os.environ.get("RECSYS_COMMIT")
    if told:
        return told
    if CHECKOUT is None:
        return f"version {_version('recsys-engine')}"
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:  # a machine without git
        return "unknown"
    return run.stdout.strip() or "unknown"


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
