"""Settings of all tests."""

import contextlib
import sys
from collections.abc import Iterator

import pytest

# A GPU machine that runs the kernels' tests alone has no Hypothesis.
with contextlib.suppress(ModuleNotFoundError):
    from hypothesis import settings

    # A busy machine is no mistake: no example has to end within Hypothesis' 200 ms.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _threads_are_left_alone() -> Iterator[None]:
    """All tests after one that leaves more threads behind would spin at barriers, several times as long."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        left = torch.get_num_threads()
        torch.set_num_threads(before)
        pytest.fail(f"the test leaves torch with {left} threads, {before} were set before")
