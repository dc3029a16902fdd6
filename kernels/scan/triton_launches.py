"""Allocation and launches of the scan's GPU kernels; `triton` registers them with PyTorch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.kernels.scan.triton_backward import scan_chunk_starts, scan_tasks_backward
from recsys.kernels.scan.triton_carries import add_parts, carry_chunks
from recsys.kernels.scan.triton_forward import scan_chunk_ends, scan_tasks
from recsys.kernels.shared.launching import Config, architecture, choose_config, launch

__all__ = ["KEEP", "Inputs", "WorkList", "allocate_outputs", "scan", "scan_backward"]

KEEP = 16
"""Events, counted from a sequence's start, between states kept for the backward pass; divides CHUNK."""

# State elements that all programs of a backward launch hold together: bounds the number of programs, and so
# the partial sums of dA (4 MB) and the scratch space (8 states each, 32 MB), whatever the batch.
_RESIDENT = 2**20


@dataclass(frozen=True, slots=True)
class WorkList:
    """The tensors of a `ScanSchedule`."""

    tasks: Tensor
    bounds: Tensor
    chunks: Tensor
    chains: Tensor


@dataclass(frozen=True, slots=True)
class Inputs:
    """Arguments of the scan as the kernels read them: any float type, rows of any stride."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    initial_state: Tensor | None
    offsets: Tensor
    delta_softplus: bool

    @classmethod
    def arrange(
        cls,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        offsets: Tensor,
        delta_softplus: bool,
    ) -> "Inputs":
        """Copy what the kernels cannot read in place: columns apart, and small parameters."""

        def flat(x: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
            return None if x is None else x.to(dtype or x.dtype).contiguous()

        return cls(
            _rows(u),
            _rows(delta),
            A.float().contiguous(),
            _rows(B),
            _rows(C),
            flat(D),
            None if z is None else _rows(z),
            flat(delta_bias),
            flat(initial_state, torch.float32),
            offsets.contiguous(),
            delta_softplus,
        )

    @property
    def events(self) -> int:
        """N."""
        return self.u.shape[0]

    @property
    def d_inner(self) -> int:
        """d_inner."""
        return self.u.shape[1]

    @property
    def d_state(self) -> int:
        """d_state."""
        return self.A.shape[1]

    def config(self, kernel: str, **more: int) -> Config:
        """Configuration of a kernel for these sizes and types, none of them the batch's.

        padded: 1 if some state or channel of a block is padding, whose masks take registers.
        `more` is what the rows of this kernel alone ask for.
        """
        return choose_config(
            "scan",
            kernel,
            architecture(self.u),
            dtype=str(self.u.dtype).removeprefix("torch."),
            d_state=self.d_state,
            padded=int(self.d_state not in (16, 32, 64) or self.d_inner % 32 != 0),
            **more,
        )

    def constants(self, config: Config) -> dict[str, Any]:
        """Compile-time arguments that are not in the table."""
        aligned = min(_alignment(self.B), _alignment(self.C))
        return {"SOFTPLUS": self.delta_softplus, "WHOLE": self.whole(config), "ALIGNED": aligned}

    def whole(self, config: Config) -> bool:
        """Whether no channel and no state of a block is padding."""
        return self.d_state == config.blocks["BLOCK_S"] and self.d_inner % config.blocks["BLOCK_D"] == 0

    def blocks(self, config: Config) -> int:
        """Blocks of channels."""
        return -(-self.d_inner // config.blocks["BLOCK_D"])


def _rows(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 or x.shape[1] == 1 else x.contiguous()


def _alignment(x: Tensor) -> int:
    """Bytes of 4 elements if every row starts at a multiple of them, else 0."""
    vector = 4 * x.element_size()
    return vector if x.data_ptr() % vector == 0 and x.stride(0) % 4 == 0 else 0


def _row(x: Tensor | None) -> int:
    return 0 if x is None else x.stride(0)


def allocate_outputs(
    u: Tensor, A: Tensor, offsets: Tensor, with_state: bool, trained: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Make y, the final states and the kept states; the last two are empty unless wanted."""
    (events, d_inner), d_state = u.shape, A.shape[1]
    sequences = offsets.shape[0] - 1 if with_state else 0
    return (
        u.new_empty(events, d_inner),
        u.new_empty(sequences, d_inner, d_state, dtype=torch.float32),
        u.new_empty(events // KEEP if trained else 0, d_inner, d_state, dtype=torch.float32),
    )


def scan(x: Inputs, schedule: WorkList, y: Tensor, final: Tensor | None, kept: Tensor | None) -> None:
    """Run the forward kernels; `final` and `kept` are None where they are not wanted."""
    carries = _forward_carries(x, schedule)
    config = x.config("tasks")
    launch(
        scan_tasks,
        (schedule.bounds.shape[0] - 1) * x.blocks(config),
        config,
        x.u,
        x.delta,
        x.A,
        x.B,
        x.C,
        x.D,
        x.z,
        x.delta_bias,
        x.initial_state,
        carries,
        x.offsets,
        schedule.tasks,
        schedule.bounds,
        y,
        final,
        kept,
        _row(x.u),
        _row(x.delta),
        _row(x.B),
        _row(x.C),
        _row(x.z),
        x.d_inner,
        x.d_state,
        KEEP=KEEP,
        **x.constants(config),
    )


def _forward_carries(x: Inputs, schedule: WorkList) -> Tensor | None:
    """States before each chunk of the long sequences, None without any."""
    slots = schedule.chunks.shape[0]
    if slots == 0:
        return None
    ends = x.A.new_empty(slots, x.d_inner, x.d_state)
    spans = x.A.new_empty(slots, x.d_inner)
    config = x.config("chunk_ends")
    launch(
        scan_chunk_ends,
        slots * x.blocks(config),
        config,
        x.u,
        x.delta,
        x.A,
        x.B,
        x.delta_bias,
        schedule.chunks,
        ends,
        spans,
        _row(x.u),
        _row(x.delta),
        _row(x.B),
        x.d_inner,
        x.d_state,
        **x.constants(config),
    )
    return _carry(x, schedule, ends, spans, x.initial_state, None, reverse=False)


def _carry(
    x: Inputs,
    schedule: WorkList,
    ends: Tensor,
    spans: Tensor,
    start: Tensor | None,
    result: Tensor | None,
    *,
    reverse: bool,
) -> Tensor:
    carries = torch.empty_like(ends)
    config = x.config("carries")
    launch(
        carry_chunks,
        schedule.chains.shape[0] * x.blocks(config),
        config,
        x.A,
        ends,
        spans,
        carries,
        schedule.chains,
        start,
        result,
        x.d_inner,
        x.d_state,
        REVERSE=reverse,
        WHOLE=x.whole(config),
    )
    return carries


def scan_backward(
    x: Inputs, schedule: WorkList, kept: Tensor, dy: Tensor, dfinal: Tensor | None
) -> tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None
]:
    """Run the backward kernels.

    Returns:
        Gradients of u, delta, A, B, C, D, z, delta_bias and initial_state, None where there is no such
        argument; parameters and states in float32, the others in the type of their tensors.
    """
    dy = dy.contiguous()
    dfinal = None if dfinal is None else dfinal.float().contiguous()
    du, ddelta = (torch.empty(g.shape, dtype=g.dtype, device=g.device) for g in (x.u, x.delta))
    dz = None if x.z is None else torch.empty(x.z.shape, dtype=x.z.dtype, device=x.z.device)
    dinitial = None if x.initial_state is None else torch.empty_like(x.initial_state)
    carries = _backward_carries(x, schedule, dy, dfinal, dinitial)

    # States from or to elsewhere take registers, and without gates another code spills.
    stated, ungated = int(dfinal is not None or dinitial is not None), int(x.z is None)
    config = x.config("tasks_backward", stated=stated, ungated=ungated)
    blocks, tile = x.blocks(config), config.blocks["BLOCK_D"] * config.blocks["BLOCK_S"]
    groups = schedule.bounds.shape[0] - 1
    programs = min(groups, max(1, _RESIDENT // (tile * max(blocks, 1))))
    new = x.A.new_empty
    part_A = new(programs, x.d_inner, x.d_state)
    part_B, part_C = new(blocks, x.events, x.d_state), new(blocks, x.events, x.d_state)
    part_D, part_bias = (None if p is None else new(programs, x.d_inner) for p in (x.D, x.delta_bias))
    launch(
        scan_tasks_backward,
        programs * blocks,
        config,
        x.u,
        x.delta,
        x.A,
        x.B,
        x.C,
        x.D,
        x.z,
        x.delta_bias,
        x.initial_state,
        carries,
        x.offsets,
        schedule.tasks,
        schedule.bounds,
        kept,
        dy,
        dfinal,
        du,
        ddelta,
        dz,
        dinitial,
        part_A,
        part_B,
        part_C,
        part_D,
        part_bias,
        new(programs, KEEP // config.blocks["BLOCK_T"], x.d_inner, x.d_state),
        _row(x.u),
        _row(x.delta),
        _row(x.B),
        _row(x.C),
        _row(x.z),
        x.d_inner,
        x.d_state,
        groups,
        programs,
        x.events,
        KEEP=KEEP,
        **x.constants(config),
    )
    dA = part_A.sum(0)
    dD, dbias = (None if part is None else part.sum(0) for part in (part_D, part_bias))
    dB, dC = _add(part_B, x.B), _add(part_C, x.C)
    return du, ddelta, dA, dB, dC, dD, dz, dbias, dinitial


def _backward_carries(
    x: Inputs, schedule: WorkList, dy: Tensor, dfinal: Tensor | None, dinitial: Tensor | None
) -> Tensor | None:
    """Gradients of the states after each chunk of the long sequences, None without any."""
    slots = schedule.chunks.shape[0]
    if slots == 0:
        return None
    starts = x.A.new_empty(slots, x.d_inner, x.d_state)
    spans = x.A.new_empty(slots, x.d_inner)
    config = x.config("chunk_starts")
    launch(
        scan_chunk_starts,
        slots * x.blocks(config),
        config,
        x.delta,
        x.A,
        x.C,
        x.z,
        x.delta_bias,
        dy,
        schedule.chunks,
        starts,
        spans,
        _row(x.delta),
        _row(x.C),
        _row(x.z),
        x.d_inner,
        x.d_state,
        **x.constants(config),
    )
    return _carry(x, schedule, starts, spans, dfinal, dinitial, reverse=True)


def _add(parts: Tensor, like: Tensor) -> Tensor:
    """Add slices (blocks, N, d_state) in order, in the type of `like`."""
    total = torch.empty(like.shape, dtype=like.dtype, device=like.device)
    config = Config(blocks={"BLOCK": 512}, num_warps=4, num_stages=1)
    programs = -(-total.numel() // config.blocks["BLOCK"])
    launch(add_parts, programs, config, parts, total, total.numel(), parts.shape[0])
    return total
