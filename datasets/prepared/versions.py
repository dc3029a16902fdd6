"""How meta.json of earlier versions is read.

It carries the version of its layout under ``format_version``. A change of the layout raises `FORMAT_VERSION`
by one and adds one function to `STEPS`, which makes the next version of a record. Nothing else knows of old
versions.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recsys.errors import DataError

FORMAT_VERSION = 1

STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Version to the function that makes the next one of it; the first version is still the latest."""


def upgraded(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    """A record as this version writes it.

    Args:
        meta: contents of a meta.json.
        path: of that file, for messages.

    Raises:
        DataError: the version is not known.
    """
    version = meta.get("format_version")
    if version not in (*STEPS, FORMAT_VERSION):
        raise DataError(
            f"{path}: format version {version} is not known here ({FORMAT_VERSION} is); prepare the log again"
        )
    while version != FORMAT_VERSION:
        meta = STEPS[version](meta)
        version = meta["format_version"]
    return meta
