"""A plugin of pytest: each test's outcome in a file as soon as it is known, and none run that has passed."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["OUTCOMES", "PASSED"]

OUTCOMES = "RECSYS_GPU_OUTCOMES"
"""Environment: the file that lines are added to."""

PASSED = "RECSYS_GPU_PASSED"
"""Environment: a JSON list of tests to leave out. Written before, so that all processes collect the same."""


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out what has passed."""
    known = set(json.loads(Path(os.environ[PASSED]).read_text(encoding="utf-8")))
    left = [item for item in items if item.nodeid not in known]
    if len(left) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in known])
        items[:] = left


def pytest_runtest_logreport(report: Any) -> None:
    """Write one line for a test that was called, skipped, or failed on the way."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # the process that leads them gets every report
        return
    if report.when != "call" and report.outcome == "passed":
        return
    entry = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
    if report.outcome == "failed":
        entry["error"] = str(report.longrepr)[-2_000:]
    with Path(os.environ[OUTCOMES]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
