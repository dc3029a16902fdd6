"""How ``run.json`` of earlier versions is read.

It carries the version of its layout under ``format``. A change of the layout raises `VERSION` by one and adds
one function to `STEPS`, which makes the next version of a record. Nothing else knows of old versions.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import RunError

VERSION = 2


def upgraded(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """A record as this version writes it.

    Args:
        record: contents of a ``run.json``.
        path: of that file, for messages.

    Raises:
        RunError: the version is not known.
        KeyError: the file is damaged.
    """
    version = record["format"]
    if version not in (*STEPS, VERSION):
        raise RunError(f"{path}: run format {version} is not known here; train anew, or update recsys")
    while version != VERSION:
        record = STEPS[version](record)
        version = record["format"]
    return record


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Version 1 did not say which data the run was trained on."""
    return {**record, "format": 2, "dataset": None}


STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
