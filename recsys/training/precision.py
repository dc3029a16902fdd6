"""Mixed precision of training: products of bfloat16, sums and weights of float32."""

import contextlib

import torch
from torch import Tensor

from recsys.kernels.cross_entropy import BACKENDS
from recsys.kernels.linear import narrow_products


class MixedPrecision:
    """How one training run multiplies: decided by its settings and its device.

    On a GPU autocast covers the encoder and the loss. On a CPU with matrix tiles (AMX) tensors stay float32:
    linear layers round what they multiply, and autocast covers the softmax over the catalog, whose kernel
    uses them as well. Validation is not covered: it ranks in float32.

    Args:
        wanted: the setting `training.amp`.
        device: of the run.
        full_softmax: whether the loss is the softmax over the catalog.
    """

    def __init__(self, wanted: bool, device: torch.device, *, full_softmax: bool) -> None:
        self._gpu = wanted and device.type == "cuda"
        self._tiles = wanted and device.type == "cpu" and _compiled_for_tiles()
        self._full_softmax = full_softmax

    @property
    def line(self) -> str | None:
        """One line about what a CPU does beside its default, or None."""
        return (
            "Mixed precision: the processor's matrix tiles (AMX) multiply bfloat16" if self._tiles else None
        )

    def encoder(self) -> contextlib.AbstractContextManager[object]:
        """Around the encoder's forward pass."""
        if self._tiles:
            return narrow_products()
        return torch.autocast("cuda", dtype=torch.bfloat16) if self._gpu else contextlib.nullcontext()

    def loss(self) -> contextlib.AbstractContextManager[object]:
        """Around the loss."""
        if self._tiles:
            cast = self._full_softmax
            return torch.autocast("cpu", dtype=torch.bfloat16) if cast else contextlib.nullcontext()
        return self.encoder()


def as_multiplied(x: Tensor) -> Tensor:
    """Rounded as autocast rounds what is multiplied, and wide again for sums."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return x.to(torch.get_autocast_dtype(device)).float()
    return x


def _compiled_for_tiles() -> bool:
    if BACKENDS.choose(None, torch.empty(0)) != "cpu":
        return False
    from recsys.kernels.shared.vector.tiles import tiles_available

    return tiles_available()
