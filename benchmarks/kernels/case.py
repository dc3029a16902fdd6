"""One comparison: our operation and its rivals on the same numbers, and the least work it takes."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "DEFINITION",
    "Case",
    "Side",
    "Sides",
    "Work",
    "both_ways",
    "compared",
    "comparisons",
    "round_trip",
]

Side = Callable[[], Any]

DEFINITION = "definition"
"""Name of the side that runs an operation's `reference`; the alternating program has it as a rival only where
there is no other, since it is made to be read and not to be fast."""


@dataclass(frozen=True, slots=True)
class Work:
    """What no implementation can do without."""

    bytes: float = 0.0
    """Inputs read once and outputs written once."""
    flops: float = 0.0
    """Of matrix products, multiply and add counted as two."""
    exps: float = 0.0
    """Exponentials."""
    state_steps: float = 0.0
    """Of a scan: events x channels x states."""


@dataclass(frozen=True, slots=True)
class Case:
    """A comparison that is ready to run."""

    operation: str
    shape: str
    d_model: int
    dtype: str
    direction: str
    """forward, backward, or forward+backward."""
    events: int
    sides: Mapping[str, Side]
    """Ours first; each returns what it computed."""
    upstreams: Mapping[str, Tensor] = field(default_factory=dict)
    """Of forward sides: one gradient, laid out as each result is, zero in padding."""
    work: Work = Work()
    target: tuple[str, float] | None = None
    """(rival, how many times faster we mean to be)."""
    note: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    repeatable: bool = True
    """Whether a second call gives the same: not where it goes on from what the first left, or draws anew."""

    @property
    def ours(self) -> str:
        """Name of the first side."""
        return next(iter(self.sides))

    @property
    def name(self) -> str:
        """One line for people."""
        return f"{self.operation} {self.direction}, {self.shape}, d {self.d_model}, {self.dtype}"


def compared(sides: Mapping[str, Side]) -> dict[str, Side]:
    """The sides that a claim is made about: all, without the definition where there is another rival."""
    rivals = [name for name in sides if name != DEFINITION]
    return {name: sides[name] for name in rivals} if len(rivals) > 1 else dict(sides)


Sides = Mapping[str, tuple[Callable[..., Any], Sequence[Tensor], Any]]
"""Side -> (function of the leaves, leaves, gradient of its result); ours first."""


def comparisons(
    sides: Sides,
    device: torch.device,
    *,
    operation: str,
    shape: str,
    d_model: int,
    dtype: torch.dtype,
    events: int,
    work: Callable[[str], Work],
    alike: Container[str] | None = None,
    target: Callable[[str], tuple[str, float] | None] = lambda direction: None,
    facts: Callable[[str], Mapping[str, Any]] = lambda direction: {},
    repeatable: bool = True,
) -> Iterator[Case]:
    """Yield the comparison of each direction.

    Args:
        sides: ours and its rivals.
        device: as in `both_ways`.
        operation: of the case, as the next four are.
        shape: title.
        d_model: width.
        dtype: of the inputs.
        events: of a batch.
        work: what no implementation can do without, by direction.
        alike: the sides whose forward results have to agree; None is all.
        target: by direction, as `Case.target`.
        facts: by direction, as `Case.facts`.
        repeatable: as `Case.repeatable`.
    """
    for direction, calls in both_ways(sides, device).items():
        forward = direction == "forward"
        yield Case(
            operation,
            shape,
            d_model,
            str(dtype).removeprefix("torch."),
            direction,
            events,
            calls,
            upstreams={
                name: upstream
                for name, (_, _, upstream) in sides.items()
                if forward and (alike is None or name in alike)
            },
            work=work(direction),
            target=target(direction),
            facts=facts(direction),
            repeatable=repeatable,
        )


def both_ways(sides: Sides, device: torch.device) -> dict[str, dict[str, Side]]:
    """Make the sides of each direction from functions and what to differentiate them by.

    Args:
        sides: ours and its rivals.
        device: on a CPU forward and forward+backward are timed; on a GPU forward and backward.

    Returns:
        direction -> side -> call.
    """
    directions: dict[str, dict[str, Side]] = {"forward": {}}
    for name, (function, leaves, _) in sides.items():
        directions["forward"][name] = _forward(function, leaves)
    if device.type == "cuda":
        directions["backward"] = {name: _backward(*side) for name, side in sides.items()}
    else:
        directions["forward+backward"] = {name: round_trip(*side) for name, side in sides.items()}
    return directions


def _forward(function: Callable[..., Tensor], leaves: Sequence[Tensor]) -> Side:
    def run() -> Tensor:
        with torch.no_grad():
            return function(*leaves)

    return run


def round_trip(function: Callable[..., Tensor], leaves: Sequence[Tensor], upstream: Tensor) -> Side:
    """The call that runs a function and takes the gradients of its leaves."""

    def run() -> Any:
        return torch.autograd.grad(function(*leaves), leaves, upstream)

    return run


def _backward(function: Callable[..., Tensor], leaves: Sequence[Tensor], upstream: Tensor) -> Side:
    result: list[Tensor] = []

    def run() -> Any:
        if not result:  # the graph is built by the call that warms the side up
            result.append(function(*leaves))
        return torch.autograd.grad(result[0], leaves, upstream, retain_graph=True)

    return run
