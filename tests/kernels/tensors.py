"""What tests of several kernels need: offsets of sequences, and how near a result is to the exact one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def offsets_of(lengths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """(B+1,) int32 offsets of sequences that lie end to end."""
    return torch.tensor([0, *lengths], device=device).cumsum(0).int()


def assert_near(
    ours: Mapping[str, Tensor] | Sequence[Tensor],
    exact: Mapping[str, Tensor] | Sequence[Tensor],
    relative: float,
    floor: float = 0.0,
) -> None:
    """Each result differs from the exact one by at most a share of its norm.

    Args:
        ours: results, by name or in order.
        exact: the same in float64.
        relative: largest norm of a difference beside the norm of the exact result.
        floor: norm of a difference that is always allowed, for results that are exactly zero.
    """
    if isinstance(ours, Mapping) and isinstance(exact, Mapping):
        assert ours.keys() == exact.keys()
        pairs = [(name, ours[name], want) for name, want in exact.items()]
    else:
        assert not isinstance(ours, Mapping)
        assert not isinstance(exact, Mapping)
        pairs = [(str(n), mine, want) for n, (mine, want) in enumerate(zip(ours, exact, strict=True))]
    for name, mine, want in pairs:
        assert mine.shape == want.shape, (name, mine.shape, want.shape)
        error = float((mine.double() - want.double()).norm())
        assert error <= relative * float(want.double().norm()) + floor, (name, error)
