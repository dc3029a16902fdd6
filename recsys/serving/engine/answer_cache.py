"""Answers for users of whom nothing came in since: neither read, encoded nor searched again.

An answer is made of a model with its catalog, of what the log and the event store hold of the user, and of
the request. The first never changes while it is in service, and the last is the key; the user's position in
the store is kept beside the answer, and is another one after every event and every erasure.
"""

from collections.abc import Hashable
from dataclasses import replace

from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.engine.served import Served
from recsys.serving.engine.sized_cache import SizedCache
from recsys.serving.engine.tails import Position

_ANSWER, _ITEM = 1000, 300
"""Bytes of an answer and of each of its items; 710 and 220 as measured, with titles of 40 letters."""


class AnswerCache:
    """Answers by model and request, each with the position that it was made under. Used by one thread.

    Args:
        most_bytes: that are kept; 0 keeps nothing.
    """

    def __init__(self, most_bytes: int) -> None:
        self._kept: SizedCache[tuple[Position, Answered]] = SizedCache(most_bytes)

    @property
    def bytes(self) -> int:
        """Bytes that are kept."""
        return self._kept.bytes

    def get(self, served: Served, ask: Ask, position: Position | None) -> Answered | None:
        """The answer that was kept, None where there is none or something came in since.

        Args:
            served: the model that is to answer.
            ask: with the user's id in the log's kind.
            position: of the user now; None where that is not known.
        """
        if position is None or not _of_user_only(ask):
            return None
        found = self._kept.get(_key(served, ask))
        return found[1] if found is not None and found[0] == position else None

    def put(self, served: Served, ask: Ask, position: Position | None, answered: Answered) -> None:
        """Keep an answer, unless it has something to be counted each time: a fallback, or unknown items.

        Args:
            served: the model that answered.
            ask: as for `get`.
            position: of the user before the answer was made.
            answered: as it was computed.
        """
        if position is None or not _of_user_only(ask) or answered.fallback or answered.history.unknown:
            return
        kept = replace(answered, batch=0, queue_ms=0.0, cached=True)
        self._kept.keep(_key(served, ask), (position, kept), _ANSWER + _ITEM * len(kept.items))


def _of_user_only(ask: Ask) -> bool:
    """Whether a user is asked for with nothing beside that is another one each time."""
    return ask.user is not None and ask.history is None and ask.allow is None and ask.deny is None


def _key(served: Served, ask: Ask) -> Hashable:
    category = None if ask.category is None else tuple(ask.category)
    # 1, 1.0 and True are three values of a column.
    context = None if ask.context is None else tuple(sorted((n, repr(v)) for n, v in ask.context.items()))
    return (
        served.number,
        ask.user,
        ask.k,
        ask.exclude_seen,
        ask.at,
        ask.time_zone,
        category,
        ask.interests,
        context,
    )
