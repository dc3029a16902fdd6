"""The last minutes of a worker, second by second: requests, their times, batches, kept vectors."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

SECONDS = 180
"""How far back the curves go."""
_MOST_TIMES = 512
"""Times kept of a second; a busier one keeps as many of its requests'."""


@dataclass(slots=True)
class Second:
    """What one second held.

    Attributes:
        at: which, in whole seconds of the monotonic clock.
        requests: answered in it.
        errors: of them with a status of 500 and more.
        times: of its requests in seconds, at most `_MOST_TIMES` of them.
        computed: of its requests that were answered by a batch.
        batched: sum of the sizes of their batches.
        largest: largest of those.
        asked: of its requests that could have found their vector kept.
        kept: of those that did.
    """

    at: int
    requests: int = 0
    errors: int = 0
    times: list[float] = field(default_factory=list)
    computed: int = 0
    batched: int = 0
    largest: int = 0
    asked: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Curves:
    """Series of equal length, oldest first; None where a second had nothing to measure."""

    requests: list[float]
    errors: list[float]
    p50: list[float | None]
    p99: list[float | None]
    batch_mean: list[float | None]
    batch_largest: list[float | None]
    kept: list[float | None]


class Traffic:
    """A ring of seconds. Every method may be called from any thread, and takes microseconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seconds: deque[Second] = deque(maxlen=SECONDS)

    def answered(
        self, seconds: float, status: int, batch: int | None = None, kept: bool | None = None
    ) -> None:
        """A request was answered.

        Args:
            seconds: after which.
            status: of the answer.
            batch: requests that were computed with it; None where nothing was.
            kept: whether the user's vector was there from before; None where none was looked for.
        """
        with self._lock:
            at = int(self._clock())
            if not self._seconds or self._seconds[-1].at < at:
                self._seconds.append(Second(at))
            now = self._seconds[-1]
            now.requests += 1
            now.errors += status >= 500
            if len(now.times) < _MOST_TIMES:
                now.times.append(seconds)
            else:
                # A fixed stride over the places replaces old ones evenly.
                now.times[now.requests * 197 % _MOST_TIMES] = seconds
            if batch is not None:
                now.computed += 1
                now.batched += batch
                now.largest = max(now.largest, batch)
            if kept is not None:
                now.asked += 1
                now.kept += kept

    def curves(self, seconds: int = SECONDS) -> Curves:
        """The whole seconds before this one."""
        with self._lock:
            last = int(self._clock())
            held = {second.at: second for second in self._seconds if second.at < last}
            rows = [held.get(at) or Second(at) for at in range(last - seconds, last)]
            return Curves(
                requests=[float(row.requests) for row in rows],
                errors=[float(row.errors) for row in rows],
                p50=[quantile(row.times, 0.50) for row in rows],
                p99=[quantile(row.times, 0.99) for row in rows],
                batch_mean=[row.batched / row.computed if row.computed else None for row in rows],
                batch_largest=[float(row.largest) if row.computed else None for row in rows],
                kept=[row.kept / row.asked if row.asked else None for row in rows],
            )


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of them do not exceed; None of none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
