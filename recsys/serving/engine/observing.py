"""What the engine tells of its work: metrics implement it, tests read it."""

from typing import Protocol

STAGES = ("ids", "encode", "search", "names")
"""Parts of a batch, as `Observer.stage` is told of them."""


class Observer(Protocol):
    """Told from the compute thread and from the event loop; every method returns at once and never raises."""

    def batch(self, requests: int, events: int) -> None:
        """So many requests were computed together, of at most so many events."""

    def waited(self, seconds: float) -> None:
        """A request was taken up after so long in the queue."""

    def stage(self, name: str, seconds: float) -> None:
        """A batch spent so long in one of `STAGES`."""

    def cache(self, hits: int, misses: int, evictions: int, kept_bytes: int) -> None:
        """Of a batch so many requests had their vectors kept, so many had not; and what is kept now."""

    def kept_answer(self) -> None:
        """A request had its answer kept."""

    def fallback(self, reason: str) -> None:
        """A request got the most popular items."""

    def unknown_items(self, count: int) -> None:
        """A request named so many items that the model does not know."""

    def rejected(self, reason: str) -> None:
        """A request was not taken: "queue_full", "not_ready" or "ending"."""

    def late(self) -> None:
        """A request was given up at its deadline."""

    def failed(self, error: BaseException) -> None:
        """Computing raised what no request's own mistake explains."""

    def searched(self, counts: dict[str, int]) -> None:
        """Queries that the item indexes have answered since the last time, by how."""

    def loaded(self, name: str, version: str, result: str) -> None:
        """A model was loaded, "ok", "refused" (the one before goes on) or "rolled_back"; or "unloaded"."""

    def shadowed(self, name: str, k: int, overlap: float) -> None:
        """A shadow's k answers have this share of those that were sent."""

    def exposed(self, kept: int, dropped: int) -> None:
        """So many answers were kept beside the events, and so many could not be."""


class Silent:
    """An `Observer` that keeps nothing."""

    def batch(self, requests: int, events: int) -> None:
        """Nothing."""

    def waited(self, seconds: float) -> None:
        """Nothing."""

    def stage(self, name: str, seconds: float) -> None:
        """Nothing."""

    def cache(self, hits: int, misses: int, evictions: int, kept_bytes: int) -> None:
        """Nothing."""

    def kept_answer(self) -> None:
        """Nothing."""

    def fallback(self, reason: str) -> None:
        """Nothing."""

    def unknown_items(self, count: int) -> None:
        """Nothing."""

    def rejected(self, reason: str) -> None:
        """Nothing."""

    def late(self) -> None:
        """Nothing."""

    def failed(self, error: BaseException) -> None:
        """Nothing."""

    def searched(self, counts: dict[str, int]) -> None:
        """Nothing."""

    def loaded(self, name: str, version: str, result: str) -> None:
        """Nothing."""

    def shadowed(self, name: str, k: int, overlap: float) -> None:
        """Nothing."""

    def exposed(self, kept: int, dropped: int) -> None:
        """Nothing."""
