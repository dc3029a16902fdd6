import math
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor


@pytest.fixture
def device() -> torch.device:
    """Where the Triton kernels run: the GPU, or the CPU in Triton's interpreter."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _quick_interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the interpreter what it does again at every operation of a kernel: most of a test's time."""
    interprets = "triton" in sys.modules or request.module.__name__.endswith("_triton")
    if interprets and not torch.cuda.is_available():
        from tests.kernels.quick_interpreter import quicken

        quicken(monkeypatch)


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory that a kernel forgets to write is NaN, or a number that no index can be.

    The list collects how many elements were asked for.
    """
    sizes: list[int] = []
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        make: Callable[..., Tensor] = getattr(owner, name)

        def filled(*args: object, make: Callable[..., Tensor] = make, **options: object) -> Tensor:
            made = make(*args, **options)
            sizes.append(made.numel())
            if made.dtype == torch.bool or made.is_complex():
                return made
            return made.fill_(math.nan if made.is_floating_point() else _NO_INDEX[made.dtype])

        monkeypatch.setattr(owner, name, filled)
    return sizes


# Small types hold no such number; 77 is at least not what an untouched page holds.
_NO_INDEX = {
    torch.int64: -999_999,
    torch.int32: -999_999,
    torch.int16: -9_999,
    torch.int8: -77,
    torch.uint8: 77,
}


@pytest.fixture
def _threads() -> Iterator[None]:
    """Leave the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
