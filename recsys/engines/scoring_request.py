"""What `recsys score` is asked for, in words that go to another machine: scalars and paths."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.answering.id_files import read_ids, read_user_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRequest:
    """What is to be scored. Lists of ids stay in their files, which every machine reads for itself.

    Attributes:
        users: file of user ids, as `recsys.answering.id_files.read_user_ids` reads it; None for all.
        k: answers per user.
        exclude_seen: leave out items of the history.
        allow: file of the items that may be answered alone; None for all.
        deny: file of items that may not.
        category: only items of one of these categories.
        interests: query vectors per user.
        at: when the answers are wanted; None for the time of each last event.
        context: what is known of the requests, by column; None for nothing.
        time_zone: of the requests.
        part_users: users per part.
    """

    users: str | None = None
    k: int = 10
    exclude_seen: bool = True
    allow: str | None = None
    deny: str | None = None
    category: list[str] | None = None
    interests: int = 1
    at: str | None = None
    context: dict[str, str] | None = None
    time_zone: str | None = None
    part_users: int = 100_000

    def arguments(self) -> dict[str, Any]:
        """The arguments of `Recommender.score` that say the same, lists of ids read from their files.

        Raises:
            DataError: a file cannot be read or holds no ids.
        """
        return {
            "users": None if self.users is None else read_user_ids(Path(self.users)),
            "k": self.k,
            "exclude_seen": self.exclude_seen,
            "allow": read_ids(None if self.allow is None else Path(self.allow)),
            "deny": read_ids(None if self.deny is None else Path(self.deny)),
            "category": self.category,
            "interests": self.interests,
            "at": self.at,
            "context": self.context,
            "time_zone": self.time_zone,
            "part_users": self.part_users,
        }
