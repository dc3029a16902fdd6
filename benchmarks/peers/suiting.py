"""What a peer is given by the log: a length of history, and the batch that costs it the least per event."""

from collections.abc import Callable

COVERED = 0.95
"""Share of the training histories that fit into the length chosen whole."""
LEAST = 1
MOST = 4096


def suited_length(histories: int, longest: int) -> int:
    """Events of the past that a prediction may see.

    Args:
        histories: `LogFacts.history_95`.
        longest: what it is cut at.
    """
    return max(2, min(histories, longest))


def first_batch(positions: int, length: int) -> int:
    """The power of two nearest below so many positions, in sequences of a length."""
    rows = max(positions // length, LEAST)
    return min(MOST, 1 << (rows.bit_length() - 1))


def cheapest(cost: Callable[[int], float], start: int) -> dict[int, float]:
    """Costs of batch sizes: doubled from ``start`` while that lowers the cost, else halved.

    Args:
        cost: of a size.
        start: first size.

    Returns:
        Every size that was tried with its cost; the least one is the choice.
    """
    tried = {start: cost(start)}
    for factor in (2.0, 0.5):
        size = start
        while LEAST <= (following := int(size * factor)) <= MOST:
            tried[following] = cost(following)
            if tried[following] >= tried[size]:
                break
            size = following
        if size != start:
            break
    return tried


def choice(tried: dict[int, float]) -> int:
    """The size of the least cost."""
    return min(tried, key=lambda size: tried[size])
