"""The selective scan against its definition in torch, and against mamba-ssm's CUDA kernel where it is."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.gpu import mamba
from recsys.benchmarks.kernels.case import Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf, pad
from recsys.benchmarks.kernels.shapes import BEAUTY, DENSE, ML_1M, Batch
from recsys.kernels.scan import selective_scan

__all__ = ["cases"]

STATES = 16

FEWER = {64: 8, 256: 16}
"""By how much comparisons with the definition are smaller on a CPU: it keeps every event's state."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons on one device; d_inner is twice d_model, 16 states a channel, as in Mamba."""
    on_cpu = device.type == "cpu"
    for shape in (ML_1M, BEAUTY) if on_cpu else (ML_1M, BEAUTY, DENSE):
        for d_model in (64, 256):
            for dtype in dtypes:
                if on_cpu:
                    small = Batch.make(shape, device, events // FEWER[d_model])
                    yield from _compare(small, d_model, dtype, device, rivals=True)
                yield from _compare(
                    Batch.make(shape, device, events), d_model, dtype, device, rivals=not on_cpu
                )


def _compare(
    batch: Batch, d_model: int, dtype: torch.dtype, device: torch.device, *, rivals: bool
) -> Iterator[Case]:
    channels, events = 2 * d_model, batch.events

    def drawn(*shape: int, seed: int, wide: bool = False) -> Tensor:
        return draw(*shape, seed=seed, device=device, dtype=torch.float32 if wide else dtype)

    # As a fresh model has them: A from -1 to -STATES, step sizes around 0.01.
    steps = torch.arange(1.0, STATES + 1, device=device)
    per_event = [drawn(events, channels, seed=0), drawn(events, channels, seed=1)]
    projections = [drawn(events, STATES, seed=2), drawn(events, STATES, seed=3)]
    gate = drawn(events, channels, seed=4)
    fixed = [-steps.expand(channels, STATES).contiguous(), torch.ones(channels, device=device)]
    lift = drawn(channels, seed=5, wide=True) - 4.6
    upstream = drawn(events, channels, seed=6)
    inputs = [per_event[0], per_event[1], fixed[0], *projections, fixed[1], gate, lift]
    options = _schedule(batch)

    scan: Any = selective_scan

    def ours(*inputs: Tensor) -> Tensor:
        y = scan(*inputs, batch.offsets, **options)
        assert isinstance(y, Tensor)
        return y

    def definition(*inputs: Tensor) -> Tensor:
        y = scan(*inputs, batch.offsets, backend="reference")
        assert isinstance(y, Tensor)
        return y

    sides: dict[str, Any] = {"ours": (ours, [leaf(x) for x in inputs], upstream)}
    theirs = _mamba_ssm() if rivals and device.type == "cuda" else None
    if rivals and theirs is None:
        sides["torch, event by event"] = (definition, [leaf(x) for x in inputs], upstream)
    if theirs is not None:
        sides["mamba-ssm, already padded"] = _already_padded(theirs, inputs, upstream, batch)
    size, state_steps = upstream.element_size(), events * channels * STATES
    passes = {"forward": 4, "backward": 7, "forward+backward": 11}

    def target(direction: str) -> tuple[str, float] | None:
        if rivals and "torch, event by event" in sides and direction == "forward+backward":
            return ("torch, event by event", 8.0)
        if "mamba-ssm, already padded" in sides:
            return ("mamba-ssm, already padded", 1.0 if batch.shape == DENSE else 1.3)
        return None

    rate = {"wanted_state_steps_per_s": 2.5e9} if device.type == "cpu" and not rivals else {}
    yield from comparisons(
        sides,
        device,
        operation="scan",
        shape=batch.title,
        d_model=d_model,
        dtype=dtype,
        events=events,
        work=lambda direction: Work(
            bytes=passes[direction] * events * channels * size,
            exps=state_steps * (2 if "+" in direction else 1),
            state_steps=state_steps,
        ),
        target=target,
        facts=lambda direction: rate if direction == "forward" else {},
    )


def _schedule(batch: Batch) -> dict[str, Any]:
    """What spares the GPU kernel a wait for the device."""
    from recsys.kernels import scan

    if batch.offsets.device.type == "cpu" or not hasattr(scan, "ScanSchedule"):
        return {}
    return {"schedule": scan.ScanSchedule.from_lengths(batch.lengths, batch.offsets.device)}


def _mamba_ssm() -> Callable[..., Tensor] | None:
    """Their function: of the package, of the library that was carried here, or None."""
    if find_spec("mamba_ssm") is not None:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        return partial(selective_scan_fn, delta_softplus=True)
    return None if mamba.find_library() is None else mamba.scan


def _already_padded(
    scan: Callable[..., Tensor], inputs: list[Tensor], upstream: Tensor, batch: Batch
) -> tuple[Callable[..., Tensor], list[Tensor], Tensor]:
    """Their function on arrays padded and laid out as it wants them: (B, channels, longest)."""

    def laid(x: Tensor) -> Tensor:
        return leaf(pad(x, batch).mT.contiguous())

    u, delta, A, B, C, D, z, lift = inputs
    leaves = [laid(u), laid(delta), leaf(A), laid(B), laid(C), leaf(D), laid(z), leaf(lift)]

    def rival(*leaves: Tensor) -> Tensor:
        return scan(*leaves).mT

    return rival, leaves, pad(upstream, batch)
