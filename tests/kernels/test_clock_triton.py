import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.kernels.clock import clock_sums, cosine_coefficients
from recsys.kernels.clock.triton import decayed_products

DAY = 86_400


def _inputs(
    lengths: Sequence[int], width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randint(0, 60 * DAY, (n,), generator=generator).sort().values for n in lengths]
    times = 1_700_000_000 + (torch.cat(draws) if draws else torch.zeros(0, dtype=torch.int64))
    asked = times + torch.randint(0, 2 * DAY, times.shape, generator=generator)
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    values = torch.randn(len(times), width, generator=generator)
    return values.to(device), times.to(device), asked.to(device), offsets.to(device)


def _run(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor], backend: str, rate: float = 0.2, degree: int = 7
) -> list[Tensor]:
    values, times, asked, offsets = inputs
    dtype = torch.float64 if backend == "reference" else torch.float32
    leaves = [
        values.to(dtype).clone().requires_grad_(),
        cosine_coefficients(degree).to(values.device, dtype).requires_grad_(),
        torch.tensor(rate, dtype=dtype, device=values.device, requires_grad=True),
    ]
    out = clock_sums(
        leaves[0],
        times,
        asked,
        offsets,
        coefficients=leaves[1],
        rate=leaves[2],
        max_length=1000,
        backend=backend,
    )
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]


@pytest.mark.parametrize(
    ("lengths", "width", "degree"),
    [([0, 1, 15, 16, 17, 0, 40], 5, 7), ([33, 2], 80, 29), ([3] * 20 + [130], 4, 3)],
)
def test_sums_and_gradients_equal_the_definition(
    lengths: list[int], width: int, degree: int, device: torch.device
) -> None:
    inputs = _inputs(lengths, width, device)
    exact = _run(inputs, "reference", degree=degree)
    ours = _run(inputs, "triton", degree=degree)
    for a, b, bound in zip(ours, exact, (3e-6, 3e-6, 3e-6, 1e-3), strict=True):
        assert float((a - b).norm()) <= bound * float(b.norm()) + 1e-7


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_a_batch_without_events_is_nothing(lengths: list[int], device: torch.device) -> None:
    assert _run(_inputs(lengths, 4, device), "triton")[0].shape == (0, 4)


def test_a_sequence_has_the_same_bits_alone_and_in_a_batch(device: torch.device) -> None:
    values, times, asked, offsets = _inputs([20, 0, 33, 5], 4, device)
    whole = _run((values, times, asked, offsets), "triton")[0]
    for start, end in itertools.pairwise(offsets.tolist()):
        alone = torch.tensor([0, end - start], dtype=torch.int32, device=device)
        part = _run((values[start:end], times[start:end], asked[start:end], alone), "triton")[0]
        assert torch.equal(part, whole[start:end])


def test_the_kernel_is_registered_properly(device: torch.device) -> None:
    offsets = torch.tensor([0, 5, 20], dtype=torch.int32, device=device)
    a, b, c = (torch.randn(20, 8, device=device).requires_grad_() for _ in range(3))
    logs = torch.rand(20, dtype=torch.float64, device=device).sort().values
    torch.library.opcheck(
        decayed_products, (a, logs.clone().requires_grad_(), b, logs, c, offsets, 0, False, True)
    )


def test_too_fine_a_kernel_is_refused(device: torch.device) -> None:
    with pytest.raises(ArgumentError, match="coefficients has 34 entries, backend 'triton' takes at most 32"):
        _run(_inputs([3], 2, device), "triton", degree=33)
