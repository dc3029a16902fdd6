"""What the reader of a user's page chose: the query of its address, and back."""

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query

SIZES = (5, 10, 20, 50, 100)
AT_LAST_EVENT = -1


@dataclass(frozen=True, slots=True)
class Choices:
    """How a user's answers are wanted; each default is what an address without it means.

    Attributes:
        k: answers.
        category: only items of it; "" is any.
        seen: "1" answers items of the history, too.
        hour: local hour of the request, `AT_LAST_EVENT` for that of the last event.
        model: that answers; "" is the user's own.
        item: appended to the history, for this answer alone; "" is none.
        zone: in which times are shown.
    """

    k: int = 10
    category: str = ""
    seen: str = ""
    hour: int = AT_LAST_EVENT
    model: str = ""
    item: str = ""
    zone: str = ""

    def query(self, **changes: Any) -> str:
        """The choices as a query without "?", with some of them changed and the defaults left out."""
        chosen, default = asdict(replace(self, **changes)), asdict(Choices())
        return urlencode({name: value for name, value in chosen.items() if value != default[name]})


def choices_of(
    k: Annotated[int, Query(ge=1, le=1000)] = 10,
    category: Annotated[str, Query(max_length=256)] = "",
    seen: Annotated[str, Query(max_length=1)] = "",
    hour: Annotated[int, Query(ge=AT_LAST_EVENT, le=23)] = AT_LAST_EVENT,
    model: Annotated[str, Query(max_length=256)] = "",
    item: Annotated[str, Query(max_length=256)] = "",
    zone: Annotated[str, Query(max_length=64)] = "",
) -> Choices:
    """The choices of a request, as a FastAPI dependency."""
    return Choices(k, category, seen, hour, model, item.strip(), zone.strip())
