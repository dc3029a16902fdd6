"""Where the committed records lie, and where programs write theirs.

In a checkout both are ``benchmarks/results``. Installed, the committed records are part of the package, which
nobody writes to, and a program's own go to ``results`` in the current folder.
"""

from pathlib import Path

__all__ = ["CHECKOUT", "RECORDS", "RESULTS"]

_HERE = Path(__file__).resolve().parent

CHECKOUT: Path | None = _HERE.parent if (_HERE.parent / "pyproject.toml").is_file() else None
"""Root of the repository; None where the package is installed."""

RECORDS = _HERE / "results"
"""What is committed."""

RESULTS = Path("results") if CHECKOUT is None else RECORDS
"""What is written, unless a program is told otherwise."""
