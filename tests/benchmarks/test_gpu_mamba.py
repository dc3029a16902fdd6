"""mamba-ssm's kernel through ctypes: that every tensor and stride lies where its structures want it."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.benchmarks.gpu import mamba
from recsys.errors import RunError


def _seen(pointer: int, *axes: tuple[int, int]) -> Tensor:
    """Float32 memory as a tensor of axes of (size, stride)."""
    length = 1 + sum((size - 1) * stride for size, stride in axes)
    memory = np.ctypeslib.as_array((ctypes.c_float * length).from_address(pointer))
    shape, strides = [size for size, _ in axes], [4 * stride for _, stride in axes]
    return torch.from_numpy(np.lib.stride_tricks.as_strided(memory, shape, strides))


def _definition(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The scan before and behind its gate."""
    state, outputs = torch.zeros(u.shape[0], *A.shape), []
    for t in range(u.shape[2]):
        step = F.softplus(delta[:, :, t] + bias)[..., None]
        state = (step * A).exp() * state + step * B[:, None, :, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t]).sum(2) + D * u[:, :, t])
    y = torch.stack(outputs, 2)
    return y, y * F.silu(z)


class _Kernel:
    """What their kernel does with its parameters, on a CPU."""

    def __init__(self, params: Any) -> None:
        self.p = params

    def events(self, name: str) -> Tensor:
        p = self.p
        batch, channels = getattr(p, f"{name}_batch_stride"), getattr(p, f"{name}_d_stride")
        return _seen(getattr(p, f"{name}_ptr"), (p.batch, batch), (p.dim, channels), (p.seqlen, 1))

    def projection(self, name: str) -> Tensor:
        p = self.p
        batch, state = getattr(p, f"{name}_batch_stride"), getattr(p, f"{name}_dstate_stride")
        return _seen(getattr(p, f"{name}_ptr"), (p.batch, batch), (p.dstate, state), (p.seqlen, 1))

    def matrix(self, name: str) -> Tensor:
        p = self.p
        channel, state = getattr(p, f"{name}_d_stride"), getattr(p, f"{name}_dstate_stride")
        return _seen(getattr(p, f"{name}_ptr"), (p.dim, channel), (p.dstate, state))

    def channels(self, name: str) -> Tensor:
        return _seen(getattr(self.p, f"{name}_ptr"), (self.p.dim, 1))

    def inputs(self) -> list[Tensor]:
        first = [self.events("u"), self.events("delta"), self.matrix("A")]
        second = [self.projection("B"), self.projection("C"), self.channels("D")]
        return [*first, *second, self.events("z"), self.channels("delta_bias")]

    def forward(self) -> None:
        out, gated = _definition(*self.inputs())
        self.events("out").copy_(out)
        self.events("out_z").copy_(gated)

    def backward(self) -> None:
        leaves = [x.clone().requires_grad_() for x in self.inputs()]
        with torch.enable_grad():
            before, gated = _definition(*leaves)
        torch.testing.assert_close(self.events("out"), before.detach())
        found = torch.autograd.grad(gated, leaves, self.events("dout"))
        places = [self.events("du"), self.events("ddelta"), self.matrix("dA"), self.projection("dB")]
        places += [
            self.projection("dC"),
            self.channels("dD"),
            self.events("dz"),
            self.channels("ddelta_bias"),
        ]
        for place, gradient in zip(places, found, strict=True):
            place.copy_(gradient)


def test_the_structures_have_the_sizes_of_theirs() -> None:
    # Seven ints and three bools fill 32 bytes; then eight bytes for each stride and pointer.
    assert ctypes.sizeof(mamba._Forward) == 32 + 8 * (20 + 11) == 280
    assert ctypes.sizeof(mamba._Backward) == 280 + 8 * (18 + 9) == 496


def test_the_kernel_finds_its_inputs_and_its_results_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(name: str, params: Any, u: Tensor) -> None:
        assert (params.n_groups, params.n_chunks, params.dim_ngroups_ratio) == (1, 1, 5)
        assert params.is_variable_B
        assert params.is_variable_C
        assert params.delta_softplus
        kernel = _Kernel(params)
        (kernel.forward if name == "scan_forward" else kernel.backward)()

    monkeypatch.setattr(mamba, "_call", call)
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    batch, channels, states, length = 2, 5, 3, 7
    wide = drawn(batch, 2 * channels, length)  # u and z are halves of one projection
    inputs = [wide[:, :channels], drawn(batch, channels, length), -drawn(channels, states).abs()]
    inputs += [drawn(batch, states, length), drawn(batch, states, length), drawn(channels)]
    inputs += [wide[:, channels:], drawn(channels)]
    leaves = [x.detach().requires_grad_() for x in inputs]
    found = mamba.scan(*leaves)
    wanted = _definition(*leaves)[1]
    torch.testing.assert_close(found, wanted)
    upstream = drawn(batch, length, channels).mT  # as a transposed result's gradient lies
    ours = torch.autograd.grad(found, leaves, upstream)
    theirs = torch.autograd.grad(wanted, leaves, upstream)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(RunError, match="u: its last axis must be contiguous"):
        mamba.scan(inputs[0].mT.contiguous().mT, *inputs[1:])


def test_what_cannot_be_compiled_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "made/lib.so"
    with pytest.raises(RunError, match="has no csrc/selective_scan"):
        mamba.compile_library(tmp_path, target)
    (tmp_path / "csrc/selective_scan").mkdir(parents=True)
    (tmp_path / "csrc/selective_scan/selective_scan.h").write_text("")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match="nvcc is not on the PATH"):
        mamba.compile_library(tmp_path, target)
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'some error' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="nvcc failed: some error"):
        mamba.compile_library(tmp_path, target)
    assert not target.exists()
    monkeypatch.setattr(mamba, "CARRIED", tmp_path)
    assert mamba.find_library() is None
