"""Which memory a soak compares with which."""

import os

import pytest

from recsys.benchmarks.processes import own_memory_of
from recsys.benchmarks.serving.soak import _filled


@pytest.mark.parametrize(
    ("looks", "seconds", "place"),
    [
        (120, 30.0, 12),  # an hour: after a tenth of it
        (20, 30.0, 8),  # ten minutes: after four of them
        (10, 27.0, 5),  # four and a half: after half
        (10, 0.6, 5),
    ],
)
def test_memory_is_compared_from_when_all_has_filled(looks: int, seconds: float, place: int) -> None:
    assert _filled(looks, seconds) == place


def test_own_memory_is_what_was_written_to() -> None:
    before = own_memory_of(os.getpid())
    more = bytearray(os.urandom(1)) * (64 * 2**20)
    grown = own_memory_of(os.getpid()) - before
    assert 60 * 2**20 < grown < 72 * 2**20
    assert len(more) == 64 * 2**20
    assert own_memory_of(2**22 + 1) == 0
