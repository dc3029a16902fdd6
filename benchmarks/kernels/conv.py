"""The causal convolution against torch's padded grouped conv1d, and causal-conv1d where it is installed."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf, pad, unpad
from recsys.benchmarks.kernels.shapes import BEAUTY, ML_1M, Batch
from recsys.kernels.conv import causal_conv

__all__ = ["cases"]

WIDTH = 4


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device; d_inner is twice d_model, as in Mamba."""
    for shape in (ML_1M, BEAUTY):
        for d_model in (64, 256):
            # Padded to 50 and 512 channels wide, torch's convolution takes seconds on a CPU.
            slow = device.type == "cpu" and shape == BEAUTY and d_model == 256
            batch = Batch.make(shape, device, events // 4 if slow else events)
            for dtype in dtypes:
                yield from _compare(batch, d_model, dtype, device)


def _compare(batch: Batch, d_model: int, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    channels = 2 * d_model
    x = draw(batch.events, channels, seed=0, device=device, dtype=dtype)
    weight = draw(channels, WIDTH, seed=1, device=device, dtype=torch.float32)
    bias = draw(channels, seed=2, device=device, dtype=torch.float32)
    upstream = draw(batch.events, channels, seed=3, device=device, dtype=dtype)
    places = batch.places()
    positions = (places % batch.longest).to(torch.int32)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = causal_conv(x, weight, bias, batch.offsets, positions=positions)
        assert isinstance(y, Tensor)
        return y

    def definition(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = causal_conv(x, weight, bias, batch.offsets, backend="reference")
        assert isinstance(y, Tensor)
        return y

    def padded(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = F.conv1d(x.mT, weight[:, None], bias, padding=WIDTH - 1, groups=channels)
        return F.silu(y[..., : x.shape[1]]).mT

    def packed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return unpad(padded(pad(x, batch), weight, bias), places)

    leaves = [leaf(x), leaf(weight), leaf(bias)]
    theirs = [leaf(x), leaf(weight.to(dtype)), leaf(bias.to(dtype))]
    already = [leaf(pad(x, batch)), *theirs[1:]]
    sides = {
        "ours": (ours, leaves, upstream),
        "torch conv1d, already padded": (padded, already, pad(upstream, batch)),
        "torch conv1d, padding and unpadding": (packed, theirs, upstream),
        DEFINITION: (definition, [leaf(x), leaf(weight), leaf(bias)], upstream),
    }
    if device.type == "cuda" and find_spec("causal_conv1d") is not None:
        from causal_conv1d import causal_conv1d_fn

        def rival(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            made: Tensor = causal_conv1d_fn(x.mT, weight, bias, activation="silu").mT
            return made

        sides["causal-conv1d, already padded"] = (rival, already, pad(upstream, batch))
    size = x.element_size()
    elements = batch.events * channels
    passes = {"forward": 2, "backward": 3, "forward+backward": 5}
    wanted = ("torch conv1d, already padded", 3.0) if batch.shape == BEAUTY else None
    yield from comparisons(
        sides,
        device,
        operation="conv",
        shape=batch.title,
        d_model=d_model,
        dtype=dtype,
        events=batch.events,
        work=lambda direction: Work(
            bytes=passes[direction] * elements * size, exps=elements * (2 if "+" in direction else 1)
        ),
        target=lambda direction: wanted if direction == "forward+backward" else None,
    )
