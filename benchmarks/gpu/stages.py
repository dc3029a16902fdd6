"""The stages of a GPU run, in order of worth."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recsys.errors import ArgumentError

__all__ = ["ROOT", "STAGES", "Scale", "Stage", "Task", "chosen", "tasks_of"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Stage:
    """A module of this folder that yields tasks, and how long they may take."""

    name: str
    about: str
    sources: tuple[str, ...]
    """Files and folders of the repository that its figures depend on: a record of others is none."""
    seconds: int = 150
    """After its compilations; what would begin later is left to the next call."""
    compiling: int = 150
    """For its compilations, which run before anything is timed."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a stage runs, and how large its work is."""

    device: torch.device
    dry: bool = False
    """Tiny shapes on the CPU, which prove that a stage runs and nothing else."""
    seconds: float = 0.3
    """About how long the sides of a comparison take turns."""
    limits: dict[str, float] | None = None
    """Of the device, as `measure_limits` found them."""
    datasets: Path | None = None
    """Folder of prepared datasets and of rivals that were taken along."""

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Of the kernels' inputs."""
        return (torch.float32,) if self.dry else (torch.bfloat16, torch.float32)

    @property
    def events(self) -> int:
        """Of a batch."""
        return 120 if self.dry else 40_000

    @property
    def runs(self) -> int:
        """How often a kernel must repeat its bits."""
        return 1 if self.dry else 20


@dataclass(frozen=True, slots=True)
class Task:
    """One case of a stage: its name in the record, what compiles it, and what measures it."""

    name: str
    warm: Callable[[], object]
    measure: Callable[[], dict[str, Any]]


def _kernels(*operations: str) -> tuple[str, ...]:
    own = [path for name in operations for path in (f"kernels/{name}", f"benchmarks/kernels/{name}.py")]
    return (*own, "kernels/shared", "benchmarks/kernels/case.py", "benchmarks/kernels/measuring.py")


_TRAINING = ("kernels", "recsys/encoders", "recsys/training", "recsys/jagged.py")

OTHERS = (
    "conv",
    "pointwise",
    "linear",
    "embedding",
    "bags",
    "repeats",
    "lazy_adamw",
    "sampling",
    "sampled_loss",
    "clock",
)
"""Operations without a stage of their own; most are bound by memory."""

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage("tests", "every test of the kernels, at real sizes too", ("kernels", "tests/kernels"), 280, 0),
        Stage(
            "topk",
            "exact search of a million items step by step, and ranks",
            (*_kernels("ranking"), "benchmarks/gpu/topk.py"),
        ),
        Stage(
            "losses",
            "linear cross-entropy beside a tuned loop, Liger's and Apple's",
            (*_kernels("cross_entropy"), "benchmarks/gpu/losses.py", "benchmarks/gpu/loss_rivals.py"),
        ),
        Stage(
            "scan", "the selective scan beside mamba-ssm's", (*_kernels("scan"), "benchmarks/gpu/mamba.py")
        ),
        Stage(
            "attention",
            "attention beside SDPA's flash path and FlexAttention",
            (*_kernels("attention"), "benchmarks/kernels/flex.py"),
        ),
        Stage(
            "step",
            "a training step of each encoder by launch",
            (*_TRAINING, "benchmarks/gpu/step.py", "benchmarks/steps.py"),
        ),
        Stage(
            "epochs",
            "epochs of each encoder: events a second, memory",
            (*_TRAINING, "benchmarks/gpu/epochs.py", "benchmarks/training.py"),
        ),
        Stage("others", "the other kernels, most of them bound by memory", _kernels(*OTHERS)),
        Stage(
            "faiss",
            "exact search beside FAISS's, or beside blocks of torch.topk",
            ("kernels/ranking", "kernels/shared", "benchmarks/gpu/faiss.py"),
        ),
        Stage(
            "retrieval",
            "what only a GPU can say of indexes: filters, threads",
            ("kernels/ranking", "kernels/shared", "recsys/retrieval", "benchmarks/gpu/retrieval.py"),
        ),
    )
}


def chosen(names: str | None) -> list[Stage]:
    """The stages of a list with commas between, in their order; None is all.

    Raises:
        ArgumentError: a name is unknown.
    """
    wanted = list(STAGES) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in STAGES:
            raise ArgumentError(f"stage {name!r} is not known: choose of {', '.join(STAGES)}")
    return [stage for name, stage in STAGES.items() if name in wanted]


def tasks_of(stage: Stage, scale: Scale) -> Iterator[Task]:
    """The tasks of a stage, made one after the other."""
    if stage.name in ("scan", "attention", "others"):
        from recsys.benchmarks.gpu.comparisons import comparisons

        return comparisons(OTHERS if stage.name == "others" else (stage.name,), scale)
    module = importlib.import_module(f"recsys.benchmarks.gpu.{stage.name}")
    made: Iterator[Task] = module.tasks(scale)
    return made
