"""Counts of what an index did, for monitoring: which ways its searches took and what it had to mend."""

from collections import Counter

from recsys.forks import Lock


class Counters:
    """Named counts, safe to share by threads.

    "exact", "gather", "fetch", "selector" and "scan" count queries by the way they were answered; "refused"
    counts items that the library returned against a selector (0 unless it ignores selectors); "completed"
    counts queries that an approximate search left short of k and an exact one finished.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, name: str, count: int) -> None:
        """Count something."""
        if count:
            with self._lock:
                self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        """All counts so far."""
        with self._lock:
            return dict(self._counts)
