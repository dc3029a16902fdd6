"""How Triton kernels are launched: one-dimensional grids, configurations from committed tables, no tuning.

Without a GPU the same launches run in Triton's interpreter (`TRITON_INTERPRET=1`, CPU tensors), or are only
recorded so that every shipped configuration can be compiled to machine code (`recording`, `machine_code`).
"""

import os
from typing import Any

import torch
from torch import Tensor

from recsys.kernels.shared.launching.configs import Config, choose_config
from recsys.kernels.shared.launching.recording import active_recorder

__all__ = ["Config", "architecture", "choose_config", "interpreting", "launch"]


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter: `TRITON_INTERPRET=1` when they were first imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def architecture(tensor: Tensor) -> str:
    """Return the chip whose configurations a launch on this tensor's device takes, such as "sm_90".

    The recorder's target while recording; "sm_90" in the interpreter.
    """
    recorder = active_recorder()
    if recorder is not None:
        return recorder.architecture
    if not tensor.is_cuda:
        return "sm_90"
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return f"sm_{major}{minor}"


def launch(kernel: Any, programs: int, config: Config, *args: Any, **constants: Any) -> None:
    """Run `programs` programs of a Triton kernel, or record the launch.

    Args:
        kernel: a function decorated with `triton.jit`.
        programs: size of the grid, on its first axis (the others end at 65,535); none run for 0.
        config: blocks (passed by keyword, so names must be the kernel's `tl.constexpr` parameters), warps
            and stages.
        args: the kernel's arguments in order; tensors on one device, None, numbers.
        constants: its other `tl.constexpr` parameters.
    """
    recorder = active_recorder()
    if recorder is not None:
        recorder.record(kernel, config, args, constants)
        return
    if programs == 0:
        return
    options = {**config.blocks, **constants}
    if interpreting():
        kernel[(programs,)](*args, **options)
        return
    device = next(x.device for x in args if isinstance(x, Tensor))
    with torch.cuda.device(device):
        kernel[(programs,)](*args, **options, num_warps=config.num_warps, num_stages=config.num_stages)
