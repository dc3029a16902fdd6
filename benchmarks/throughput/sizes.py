"""How large the work is: as in use where it is timed, tiny where it only has to run."""

from dataclasses import dataclass
from typing import Any

__all__ = ["FULL", "SMALL", "Sizes", "sizes_of"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of everything that the tests here make."""

    batch_events: int
    """Of a kernel's batch."""
    users: int
    """Of the log that encoders train on and encode; with lengths like those of ML-1M."""
    items: int
    """Of that log."""
    step_events: int
    """Of a training step."""
    catalogs: tuple[int, ...]
    """Items that are searched."""
    queries: tuple[int, ...]
    """At a time."""
    log_rows: int
    """Of the file that is prepared."""


FULL = Sizes(8_192, 100, 3_416, 4_096, (100_000,), (1, 32, 256), 1_000_000)
SMALL = Sizes(300, 12, 600, 256, (500,), (1, 8), 2_000)


def sizes_of(config: Any) -> Sizes:
    """Tiny ones where pytest-benchmark, by pytest's configuration, times nothing."""
    return SMALL if config._benchmarksession.disabled else FULL
