"""Every kernel, forward and with its backward pass, beside its definition and its rivals."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from recsys.benchmarks.kernels import COMPARED, TOLERANCE, apart, cases_of
from recsys.benchmarks.kernels.case import Case
from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import SMALL, Sizes, sizes_of

CPU, FLOAT32 = torch.device("cpu"), (torch.float32,)


def _made(operation: str, sizes: Sizes) -> Iterator[Case]:
    return cases_of(operation)(CPU, FLOAT32, sizes.batch_events)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each side of each comparison; their numbers are drawn again when it runs."""
    wanted, names = [], []
    for operation in COMPARED:
        for position, case in enumerate(_made(operation, sizes_of(metafunc.config))):
            for side in case.sides:
                wanted.append((operation, position, side))
                names.append(f"{case.name}, {side}".replace(" ", "_"))
    metafunc.parametrize(("operation", "position", "side"), wanted, ids=names)


class _Shelf:
    """The comparison asked for last, and the rest of its operation's: tests come in their order."""

    def __init__(self) -> None:
        self._operation, self._position = "", -1
        self._rest: Iterator[Case] = iter(())
        self._case: Case | None = None

    def case(self, operation: str, position: int, sizes: Sizes) -> Case:
        if operation != self._operation or position < self._position:
            self._operation, self._position, self._rest = operation, -1, _made(operation, sizes)
        while self._position < position:
            self._case = None
            self._case = next(self._rest)
            self._position += 1
        assert self._case is not None
        return self._case


@pytest.fixture(scope="module")
def shelf() -> _Shelf:
    return _Shelf()


def test_kernel(operation: str, position: int, side: str, shelf: _Shelf, meter: Meter, sizes: Sizes) -> None:
    case = shelf.case(operation, position, sizes)
    made: Any = meter(case.sides[side], group=case.name, case=case)
    if sizes is SMALL and side != case.ours and {case.ours, side} <= set(case.upstreams):
        distance = apart(case, (case.ours, case.sides[case.ours]()), (side, made))
        assert distance <= TOLERANCE[case.dtype], f"{distance:.1e} apart from ours"
