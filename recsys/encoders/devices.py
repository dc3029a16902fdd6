"""The device that a user names."""

import torch

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
        raise ArgumentError("device 'cuda': torch sees no GPU here; pass device='cpu' or 'auto'")
    return torch.device(name)
