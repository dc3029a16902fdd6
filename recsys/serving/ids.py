"""Ids as the log spells them: one user is one user, whether a path, a body or an event names them."""

import re

from recsys.events.store import RawId

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def as_logged(raw: RawId, is_int: bool) -> RawId:
    """A raw id in the kind of the log's ids.

    Args:
        raw: as it was asked; the path of a URL has text alone.
        is_int: whether the log's ids are whole numbers.

    Returns:
        The same id as int or str. Text that spells no whole number of 64 bits stays text: no log of numbers
        holds it.
    """
    if not is_int:
        return str(raw)
    if isinstance(raw, str) and _NUMBER.fullmatch(raw) is not None and -(2**63) <= int(raw) < 2**63:
        return int(raw)
    return raw
