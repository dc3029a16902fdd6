"""Column names of an interaction log, the spellings that readers accept for them, and the contract.

An *Interactions* frame is a polars frame with the columns ``user_id``, ``item_id`` (each int64 or string) and
``timestamp`` (int64, seconds since 1970-01-01 UTC) or, where a log knows the order alone, ``position``
(int64). Other columns may follow. Rows are sorted by user, then time, then place in the file.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Literal

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
POSITION = "position"

TimeUnit = Literal["s", "ms", "us", "ns", "order"]
TIME_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns", "order")

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Ticks of each unit in a second."""

LATEST_S = 7_258_118_400
"""2200-01-01T00:00:00Z; a later event is a mistaken unit or a placeholder."""

# Spellings seen in public logs (MovieLens, Amazon, Yelp, Foursquare, RecBole, RecTools), most specific
# first; compared without case, underscores, hyphens and spaces.
_SPELLINGS = {
    USER: (
        "userid user uid reviewerid customerid visitorid memberid accountid profileid"
        " username customer reviewer visitor"
    ),
    ITEM: (
        "itemid item iid movieid movie productid asin parentasin product businessid articleid"
        " clickarticleid newsid trackid songid videoid bookid venueid poiid gameid contentid sku"
    ),
    TIMESTAMP: (
        "timestamp datetime time unixreviewtime unixtime eventtime eventtimestamp clicktimestamp"
        " utctime createdat ts timems timestampms eventtimems date"
    ),
}


def plain_name(column: str) -> str:
    """Reduce a column name to what aliases are compared by; RecBole's ``:type`` suffix is dropped."""
    return re.sub(r"[\s_\-]", "", column.split(":")[0]).lower()


def find_column(role: str, columns: Iterable[str]) -> str | None:
    """Find the column that plays a role by its usual spellings.

    Args:
        role: ``user_id``, ``item_id`` or ``timestamp``.
        columns: the names present.

    Returns:
        The column with the first matching spelling, or None.
    """
    by_plain: dict[str, str] = {}
    # Beside userId, a column user_id is the one that is meant.
    for column in sorted(columns, key=lambda column: column != role):
        by_plain.setdefault(plain_name(column), column)
    for alias in _SPELLINGS[role].split():
        if alias in by_plain:
            return by_plain[alias]
    return None


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate spelled most like a name, or None where none is close."""
    found = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return found[0] if found else None
