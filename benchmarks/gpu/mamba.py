"""mamba-ssm's CUDA kernel where its package cannot be installed: compiled here, called there through ctypes.

    python -m recsys.benchmarks.gpu.mamba CHECKOUT

compiles the templates of a checkout of state-spaces/mamba for one chip into a shared library in
`.carry/rivals`, with nvcc and the headers of the installed PyTorch (a CPU build's will do), without Python
or PyTorch in it: it runs under any of either. `scan` is their autograd function over it.
"""

import argparse
import ctypes
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.benchmarks.gpu.carry import CARRIED
from recsys.errors import RecsysError, RunError

__all__ = ["compile_library", "find_library", "load", "scan"]

LIBRARY = "libmamba_scan.so"
_SOURCE = Path(__file__).with_name("mamba_scan.cu")
_EXCEPTIONS = """#pragma once
#define C10_CUDA_CHECK(call) (void)(call)
#define C10_CUDA_KERNEL_LAUNCH_CHECK()
"""
"""In place of PyTorch's header, which a CPU build lacks parts of: the caller reads the error."""

_FLAGS = (
    *("-O3", "-std=c++20", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda"),
    *(f"-U__CUDA_NO_{kind}__" for kind in ("HALF_OPERATORS", "HALF_CONVERSIONS")),
    *(f"-U__CUDA_NO_{kind}__" for kind in ("BFLOAT16_OPERATORS", "BFLOAT16_CONVERSIONS")),
    *(f"-U__CUDA_NO_{kind}__" for kind in ("BFLOAT162_OPERATORS", "BFLOAT162_CONVERSIONS")),
    *("-Xcompiler", "-fPIC", "-shared"),
)
"""Theirs, of setup.py."""

_SIZES = ("batch", "dim", "seqlen", "dstate", "n_groups", "n_chunks", "dim_ngroups_ratio")
_FLAGS_OF = ("is_variable_B", "is_variable_C", "delta_softplus")
_STRIDES = (
    *("A_d", "A_dstate", "B_batch", "B_d", "B_dstate", "B_group", "C_batch", "C_d", "C_dstate", "C_group"),
    *("u_batch", "u_d", "delta_batch", "delta_d", "z_batch", "z_d"),
    *("out_batch", "out_d", "out_z_batch", "out_z_d"),
)
_POINTERS = ("A", "B", "C", "D", "u", "delta", "delta_bias", "out", "x", "z", "out_z")
_STRIDES_BACK = (
    *("dout_batch", "dout_d", "dA_d", "dA_dstate", "dB_batch", "dB_group", "dB_d", "dB_dstate"),
    *("dC_batch", "dC_group", "dC_d", "dC_dstate", "du_batch", "du_d", "dz_batch", "dz_d"),
    *("ddelta_batch", "ddelta_d"),
)
_POINTERS_BACK = ("dout", "dA", "dB", "dC", "dD", "du", "dz", "ddelta", "ddelta_bias")


class _Forward(ctypes.Structure):
    """SSMParamsBase of their selective_scan.h."""

    _fields_ = (
        *((name, ctypes.c_int) for name in _SIZES),
        *((name, ctypes.c_bool) for name in _FLAGS_OF),
        *((f"{name}_stride", ctypes.c_uint64) for name in _STRIDES),
        *((f"{name}_ptr", ctypes.c_void_p) for name in _POINTERS),
    )


class _Backward(_Forward):
    """SSMParamsBwd."""

    _fields_ = (
        *((f"{name}_stride", ctypes.c_uint64) for name in _STRIDES_BACK),
        *((f"{name}_ptr", ctypes.c_void_p) for name in _POINTERS_BACK),
    )


def compile_library(checkout: Path, target: Path, chip: str = "sm_90") -> None:
    """Compile the library: about half a minute on one core.

    Args:
        checkout: of state-spaces/mamba.
        target: file to write.
        chip: such as "sm_90".

    Raises:
        RunError: there is no nvcc, the folder is no such checkout, or nvcc fails.
    """
    sources = checkout / "csrc" / "selective_scan"
    if not (sources / "selective_scan.h").exists():
        raise RunError(f"{checkout}: has no csrc/selective_scan; clone github.com/state-spaces/mamba")
    headers = Path(torch.__file__).parent / "include"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        stub = Path(made) / "c10" / "cuda" / "CUDAException.h"
        stub.parent.mkdir(parents=True)
        stub.write_text(_EXCEPTIONS, encoding="utf-8")
        includes = [f"-I{path}" for path in (made, sources, headers)]
        arch = f"arch={chip.replace('sm_', 'compute_')},code={chip}"
        command = ["nvcc", *_FLAGS, "-gencode", arch, *includes, str(_SOURCE), "-o", f"{made}/{LIBRARY}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise RunError("nvcc is not on the PATH; install CUDA's compiler") from None
        if done.returncode:
            raise RunError(f"nvcc failed: {' '.join(done.stderr.split())[-500:]}")
        target.write_bytes((Path(made) / LIBRARY).read_bytes())


def find_library() -> Path | None:
    """The library that was carried here, or None."""
    path = CARRIED / "rivals" / LIBRARY
    return path if path.exists() else None


@cache
def load(path: Path) -> ctypes.CDLL:
    """Open a library.

    Raises:
        RunError: it was compiled from a checkout with other structures.
    """
    library = ctypes.CDLL(str(path))
    for backward, kind in enumerate((_Forward, _Backward)):
        if library.params_size(backward) != ctypes.sizeof(kind):
            raise RunError(f"{path}: its checkout has other parameters than mamba.py; take one of July 2026")
    for name in ("scan_forward", "scan_backward"):
        getattr(library, name).argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    return library


def scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """Their `selective_scan_fn` with softplus and a gate.

    Args:
        u: (batch, channels, length) float32 or bfloat16; delta and z are alike.
        delta: step sizes before bias and softplus.
        A: (channels, states) float32.
        B: (batch, states, length) in u's type; C is alike.
        C: outputs' weights.
        D: (channels,) float32; delta_bias is alike.
        z: the gate.
        delta_bias: of the steps.

    Returns:
        (batch, channels, length).
    """
    made: Tensor = _Scan.apply(u, delta, A, B, C, D, z, delta_bias)  # type: ignore[no-untyped-call]
    return made


class _Scan(torch.autograd.Function):
    """Their `SelectiveScanFn`, with the allocations of their selective_scan.cpp."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """Save what theirs saves."""
        u, delta, A, B, C, D, z, delta_bias = inputs
        params = _Forward()
        out, out_z = torch.empty_like(delta), torch.empty_like(z)
        chunks = -(-u.shape[2] // 2048)
        x = u.new_empty(u.shape[0], u.shape[1], chunks, 2 * A.shape[1], dtype=torch.float32)
        _fill(params, u, A, B[:, None], C[:, None], chunks)
        _place(params, u=u, delta=delta, z=z, out=out, out_z=out_z)
        _point(params, A=A, B=B, C=C, D=D, delta_bias=delta_bias, x=x)
        _call("scan_forward", params, u)
        ctx.save_for_backward(*inputs, x, out)
        return out_z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all inputs."""
        u, delta, A, B, C, D, z, delta_bias, x, out = ctx.saved_tensors
        dout = gradients[0] if gradients[0].stride(-1) == 1 else gradients[0].contiguous()
        params = _Backward()
        du, ddelta, dz = torch.empty_like(u), torch.empty_like(delta), torch.empty_like(z)
        dA, dD, dbias = torch.zeros_like(A), torch.zeros_like(D), torch.zeros_like(delta_bias)
        dB, dC = (torch.zeros_like(each, dtype=torch.float32) for each in (B, C))
        _fill(params, u, A, B[:, None], C[:, None], x.shape[2])
        _place(params, u=u, delta=delta, z=z, out=out, dout=dout, du=du, ddelta=ddelta, dz=dz)
        _point(params, A=A, B=B, C=C, D=D, delta_bias=delta_bias, x=x)
        _point(params, dA=dA, dB=dB, dC=dC, dD=dD, ddelta_bias=dbias)
        params.dA_d_stride, params.dA_dstate_stride = dA.stride()
        for name, each in (("dB", dB[:, None]), ("dC", dC[:, None])):
            for axis, stride in zip(("batch", "group", "dstate"), each.stride()[:3], strict=True):
                setattr(params, f"{name}_{axis}_stride", stride)
        _call("scan_backward", params, u)
        return du, ddelta, dA, dB.to(B.dtype), dC.to(C.dtype), dD, dz, dbias


def _fill(params: _Forward, u: Tensor, A: Tensor, B: Tensor, C: Tensor, chunks: int) -> None:
    params.batch, params.dim, params.seqlen = u.shape
    params.dstate, params.n_groups, params.n_chunks = A.shape[1], 1, chunks
    params.dim_ngroups_ratio = u.shape[1]
    params.is_variable_B = params.is_variable_C = params.delta_softplus = True
    params.A_d_stride, params.A_dstate_stride = A.stride()
    params.B_batch_stride, params.B_group_stride, params.B_dstate_stride, _ = B.stride()
    params.C_batch_stride, params.C_group_stride, params.C_dstate_stride, _ = C.stride()


def _place(params: _Forward, **tensors: Tensor) -> None:
    """Pointers and the two strides of (batch, channels, length) tensors."""
    for name, tensor in tensors.items():
        if tensor.stride(2) != 1:
            raise RunError(f"{name}: its last axis must be contiguous; call .contiguous()")
        setattr(params, f"{name}_ptr", tensor.data_ptr())
        setattr(params, f"{name}_batch_stride", tensor.stride(0))
        setattr(params, f"{name}_d_stride", tensor.stride(1))


def _point(params: _Forward, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        setattr(params, f"{name}_ptr", tensor.data_ptr())


def _call(name: str, params: _Forward, u: Tensor) -> None:
    path = find_library()
    if path is None:
        raise RunError(f"{CARRIED / 'rivals' / LIBRARY} is not there; compile it with this module")
    stream = torch.cuda.current_stream(u.device).cuda_stream
    with torch.cuda.device(u.device):
        code = getattr(load(path), name)(u.dtype == torch.bfloat16, ctypes.addressof(params), stream)
    if code:
        raise RunError(f"mamba-ssm's kernel: CUDA error {code}; compile it for this chip")


def main() -> int:
    """Compile; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.gpu.mamba",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkout", type=Path, help="of github.com/state-spaces/mamba")
    parser.add_argument("--chip", default="sm_90", help="default: %(default)s")
    options = parser.parse_args()
    target = CARRIED / "rivals" / LIBRARY
    try:
        compile_library(options.checkout, target, options.chip)
        load(target)
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print(f"{target}: {target.stat().st_size / 2**20:.1f} MiB, for {options.chip}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
