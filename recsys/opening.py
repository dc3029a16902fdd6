"""What a user names, opened: devices and prepared datasets."""

from pathlib import Path
from typing import Any

import torch

from recsys.datasets.store import SequenceStore
from recsys.errors import ArgumentError


def choose_device(name: str) -> torch.device:
    """The device that a name means: ``auto`` is a GPU if torch sees one.

    Raises:
        ArgumentError: ``cuda`` without a usable GPU, or an unknown name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ArgumentError(f"device {name!r} is not auto, cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ArgumentError("device 'cuda': torch sees no GPU here; use --device cpu or auto")
    return torch.device(name)


def is_prepared(data: Any) -> bool:
    """Whether ``data`` is an open store or the folder of one."""
    return isinstance(data, SequenceStore) or (isinstance(data, str | Path) and Path(data).is_dir())


def open_store(data: Any) -> SequenceStore:
    """The store itself, or the one in a prepared folder."""
    return data if isinstance(data, SequenceStore) else SequenceStore.open(data)
