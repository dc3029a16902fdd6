"""The backend that pads for mamba-ssm, with a plain loop in the place of that package's kernels."""

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.errors import ArgumentError
from recsys.kernels import scan
from recsys.kernels.scan import mamba_ssm, selective_scan
from tests.kernels.tensors import offsets_of

LENGTHS = (3, 0, 1, 7)


def _selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """mamba-ssm's function, with its demands on types and layout: rows (B, width, L)."""
    for x in (u, delta, B, C, z):
        assert x is None or (x.dtype == u.dtype and x.is_contiguous())
    for x in (A, D, delta_bias):
        assert x is None or x.dtype == torch.float32
    dtype = u.dtype
    u, delta, B, C = (x.float() for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    h = u.new_zeros(u.shape[0], *A.shape)
    out = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.exp(step * A) * h + step * u[:, :, t, None] * B[:, None, :, t]
        y = (h * C[:, None, :, t]).sum(-1)
        out.append(y if D is None else y + D * u[:, :, t])
    y = torch.stack(out, 2)
    if z is not None:
        y = y * F.silu(z.float())
    return (y.to(dtype), h) if return_last_state else y.to(dtype)


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package mamba_ssm that the backend finds, and CPU tensors that it takes."""
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = _selective_scan_fn  # type: ignore[attr-defined]
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    monkeypatch.setattr(scan.BACKENDS, "choose", lambda backend, tensor: backend or "reference")


def _inputs(dtype: torch.dtype = torch.float32, lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    events, channels, states = sum(lengths), 4, 3
    return {
        "u": draw(events, channels).to(dtype),
        "delta": draw(events, channels).to(dtype),
        "A": -torch.exp(draw(channels, states)),
        "B": draw(events, states).to(dtype),
        "C": draw(events, states).to(dtype),
        "D": draw(channels),
        "z": draw(events, channels).to(dtype),
        "delta_bias": draw(channels) - 1,
    }


@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("without", [(), ("D", "z", "delta_bias")])
def test_outputs_states_and_gradients_are_the_references(without: tuple[str, ...], softplus: bool) -> None:
    inputs = {name: x for name, x in _inputs().items() if name not in without}
    if not softplus:
        inputs.update({name: x.abs() for name, x in inputs.items() if name in ("delta", "delta_bias")})
    options: dict[str, Any] = {"offsets": offsets_of(LENGTHS), "delta_softplus": softplus}
    upstream = torch.randn(sum(LENGTHS), 4, generator=torch.Generator().manual_seed(1))
    runs = []
    for backend in ("mamba-ssm", "reference"):
        with torch.no_grad():
            y, state = selective_scan(**inputs, **options, return_state=True, backend=backend)
        leaves = {name: x.clone().requires_grad_() for name, x in inputs.items()}
        trained = selective_scan(**leaves, **options, backend=backend)
        assert isinstance(trained, Tensor)
        assert torch.equal(trained, y)
        trained.backward(upstream)
        runs.append([y, state, *(leaf.grad for leaf in leaves.values())])
    torch.testing.assert_close(runs[0], runs[1])
    assert not runs[0][1][1].any()  # an empty sequence's state


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("softplus", [True, False])
def test_padding_leaves_the_state_alone_in_half_precision(dtype: torch.dtype, softplus: bool) -> None:
    inputs, offsets = _inputs(dtype), offsets_of(LENGTHS)
    inputs.update({name: inputs[name].abs() for name in ("delta", "delta_bias")})
    y, state = selective_scan(
        **inputs, offsets=offsets, delta_softplus=softplus, return_state=True, backend="mamba-ssm"
    )
    wanted, final = selective_scan(
        **{name: x.float() for name, x in inputs.items()},
        offsets=offsets,
        delta_softplus=softplus,
        return_state=True,
        backend="reference",
    )
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    torch.testing.assert_close(y, wanted.to(dtype))
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("lengths", [(), (0, 0)])
def test_a_batch_without_events(lengths: tuple[int, ...]) -> None:
    inputs = _inputs(torch.float16, lengths)
    y, state = selective_scan(**inputs, offsets=offsets_of(lengths), return_state=True, backend="mamba-ssm")
    assert y.shape == (0, 4)
    assert torch.equal(state, torch.zeros(len(lengths), 4, 3))


def test_what_the_package_cannot_do_is_refused_in_one_line() -> None:
    inputs, offsets = _inputs(), offsets_of(LENGTHS)
    with pytest.raises(ArgumentError, match="takes no initial_state") as error:
        selective_scan(**inputs, offsets=offsets, initial_state=torch.zeros(4, 4, 3), backend="mamba-ssm")
    assert "\n" not in str(error.value)
    inputs["u"].requires_grad_()
    with pytest.raises(ArgumentError, match="no gradient through the state") as error:
        selective_scan(**inputs, offsets=offsets, return_state=True, backend="mamba-ssm")
    assert "\n" not in str(error.value)


def test_half_steps_outweigh_any_bias() -> None:
    assert F.softplus(torch.tensor(mamba_ssm._NEVER) + 1000).item() == 0
    assert torch.tensor(mamba_ssm._NEVER, dtype=torch.float16).isfinite()
