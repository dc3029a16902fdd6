"""What figures were measured on, for every record."""

import datetime
import os
import platform
from typing import Any

from benchmarks.alternating import processor
from benchmarks.quality import commit

__all__ = ["stamp"]


def stamp() -> dict[str, Any]:
    """Time, commit and machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": processor(),
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


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None
