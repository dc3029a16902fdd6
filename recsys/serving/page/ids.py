"""Addresses of users' and items' pages."""

import re
from urllib.parse import quote, urlencode

from recsys.events.store import RawId

# A browser resolves "." and ".." before it asks, whether they are quoted or not.
_DOTS = re.compile(r"\.{0,2}")


def path_of(kind: str, raw: RawId) -> str:
    """Address of a user's or an item's page.

    An id that no path can hold (empty, dots alone, control characters) goes into the query instead.

    Args:
        kind: "users" or "items".
        raw: the id.
    """
    text = str(raw)
    if _DOTS.fullmatch(text) or any(ord(character) < 32 or ord(character) == 127 for character in text):
        return f"/ui/{kind}?{urlencode({'id': text})}"
    return f"/ui/{kind}/{quote(text, safe='')}"


def with_query(path: str, query: str) -> str:
    """An address with more of a query; `path` may have one already."""
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path
