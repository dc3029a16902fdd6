"""Elementwise work between matrix products: our passes against the same in PyTorch's operations."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.kernels.case import DEFINITION, Case, Work, comparisons
from recsys.benchmarks.kernels.padding import draw, leaf
from recsys.kernels.pointwise import activate, add_dropped, rotate_parts

__all__ = ["cases"]

DROPPED = 0.2
D_MODEL, WIDTH, HEADS = 64, 256, 2
ALIKE = "SwiGLU"
"""Whose results are compared: masks are drawn differently, and rotated parts are three results."""


def cases(device: torch.device, dtypes: tuple[torch.dtype, ...], events: int) -> Iterator[Case]:
    """Comparisons at an encoder's usual sizes."""
    generator = torch.Generator(device).manual_seed(0)
    for dtype in dtypes:
        for title, inputs, results, ours, theirs in _operations(generator, events):
            leaves = [leaf(draw(events, n, seed=i, device=device, dtype=dtype)) for i, n in enumerate(inputs)]
            upstreams = [draw(*s, seed=9, device=device, dtype=dtype) for s in results]
            upstream: Any = upstreams if len(upstreams) > 1 else upstreams[0]
            sides = {
                "ours": (ours, leaves, upstream),
                "torch, op by op": (theirs, leaves, upstream),
                DEFINITION: (partial(ours, backend="reference"), leaves, upstream),
            }
            size = leaves[0].element_size()
            moved = size * (sum(x.numel() for x in leaves) + sum(x.numel() for x in upstreams))
            yield from comparisons(
                sides,
                device,
                operation="pointwise",
                shape=title,
                d_model=D_MODEL,
                dtype=dtype,
                events=events,
                alike=None if title == ALIKE else (),
                work=partial(_work, moved),
                repeatable="dropout" not in title,
            )


def _work(moved: int, direction: str) -> Work:
    return Work(bytes=moved * (1 if direction == "forward" else 3))


def _operations(
    generator: torch.Generator, events: int
) -> Iterator[tuple[str, tuple[int, ...], list[tuple[int, ...]], Any, Any]]:
    """Title, widths of the inputs, shapes of the results, ours (on any backend) and PyTorch's."""

    def drop(x: Tensor) -> Tensor:
        keep = torch.empty_like(x).bernoulli_(1 - DROPPED, generator=generator)
        return x * keep.mul_(1 / (1 - DROPPED))

    def swiglu(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * value

    yield (
        "gated residual with dropout",
        (D_MODEL,) * 3,
        [(events, D_MODEL)],
        lambda x, y, gate, backend=None: add_dropped(x, y, DROPPED, generator, gate=gate, backend=backend),
        lambda x, y, gate: torch.addcmul(x, torch.sigmoid(gate), drop(y)),
    )
    yield (
        ALIKE,
        (2 * WIDTH,),
        [(events, WIDTH)],
        lambda x, backend=None: activate(x, "swiglu", backend=backend),
        swiglu,
    )
    yield (
        "GELU with dropout",
        (WIDTH,),
        [(events, WIDTH)],
        lambda x, backend=None: activate(x, "gelu", DROPPED, generator, backend=backend),
        lambda x: drop(F.gelu(x)),
    )
    width = D_MODEL // HEADS
    angles = torch.arange(events)[:, None] * 10_000.0 ** (-torch.arange(width // 2) / (width // 2))
    cos, sin = (x.to(generator.device) for x in (angles.cos(), angles.sin()))

    def apart(x: Tensor) -> Tensor:
        return x.view(len(x), 3, HEADS, width)

    def turned(x: Tensor) -> list[Tensor]:
        q, k, v = apart(x).unbind(1)
        c, s = cos[:, None], sin[:, None]
        halves = (part.chunk(2, dim=-1) for part in (q, k))
        return [*(torch.cat((a * c - b * s, a * s + b * c), dim=-1) for a, b in halves), v]

    yield (
        "rotary positions of queries and keys",
        (3 * D_MODEL,),
        [(events, HEADS, width)] * 3,
        lambda x, backend=None: rotate_parts(apart(x), cos, sin, 2, backend=backend),
        turned,
    )
