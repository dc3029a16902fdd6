"""Compile recorded launches to machine code without a GPU, and read what each needs of the chip."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from recsys.kernels.shared.launching import interpreting
from recsys.kernels.shared.launching.recording import Launch

__all__ = ["ARCHITECTURES", "SHARED_LIMITS", "Resources", "compile_launch"]

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
"""Chips that every kernel is compiled for: A100, H100 and H200, B200."""

SHARED_LIMITS = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}
"""Shared memory that one program may take, bytes (CUDA C++ Programming Guide, compute capabilities)."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one compiled kernel takes."""

    registers: int
    """Per thread."""
    stack: int
    """Bytes of stack per thread, where spilled registers and run-time indexed arrays lie."""
    local: int
    """Bytes of local memory per thread beyond the stack."""
    shared: int
    """Bytes of shared memory per program."""

    @property
    def spills(self) -> int:
        """Bytes per thread in slow memory; 0 is the only good number."""
        return self.stack + self.local


def compile_launch(launch: Launch, architecture: str) -> Resources:
    """Compile one launch for a chip.

    Args:
        launch: from a `Recorder`.
        architecture: one of `ARCHITECTURES`.

    Returns:
        Its resources, as cuobjdump reads them from the machine code.

    Raises:
        RuntimeError: this process defines kernels for Triton's interpreter, or Triton gave the kernel up: one
            that needs more tensor memory than a chip has becomes a bare trap, without a word.
    """
    if interpreting():
        raise RuntimeError("TRITON_INTERPRET is set: compile in a process without it")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = dict(launch.signature)
    places = {name: i for i, name in enumerate(signature)}
    attributes = {(places[name],): [["tt.divisibility", 16]] for name in launch.aligned}
    source = ASTSource(launch.kernel, signature, dict(launch.constants), attributes)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )
    if re.search(r"^\s*trap;", compiled.asm["ptx"], re.MULTILINE):
        raise RuntimeError(f"{launch.name} compiles to a trap for {architecture}: take smaller blocks")
    return _read_resources(compiled.asm["cubin"], compiled.metadata.shared)


def _read_resources(machine_code: bytes, shared: int) -> Resources:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(machine_code)
        text = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    # Dynamic shared memory is not in the machine code; Triton's own count is.
    return Resources(found["REG"], found["STACK"], found["LOCAL"], shared)
