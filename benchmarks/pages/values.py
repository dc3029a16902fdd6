"""A figure out of a record, by where it lies; means, differences and ratios of several."""

import statistics
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from recsys.benchmarks.folders import RECORDS
from recsys.errors import DataError
from recsys.files import read_json

__all__ = ["value_of"]


def value_of(source: Any) -> float:
    """The figure that a claim names.

    Args:
        source: ``"FILE.json#key/key[name=value;name=value]/key"``, where brackets pick the one entry of a
            list with these values (or by its number); or a table with one key, ``mean``, ``min``, ``max`` (of
            several), ``ratio``, ``difference`` (of two), ``sum``, ``length`` (of a list) or ``percent``.

    Raises:
        DataError: there is no such record, or no such place in it.
    """
    if isinstance(source, str):
        found = _lookup(source)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise DataError(f"{source}: is no number")
        return float(found)
    if isinstance(source, int | float):
        return float(source)
    ((kind, parts),) = source.items()
    if kind == "length":
        return float(len(_lookup(parts)))
    if kind == "percent":
        return 100 * value_of(parts)
    values = [value_of(part) for part in parts]
    if kind == "ratio":
        return values[0] / values[1]
    if kind == "difference":
        return values[0] - values[1]
    combine: dict[str, Callable[[list[float]], float]]
    combine = {"mean": statistics.fmean, "min": min, "max": max, "sum": sum}
    if kind not in combine:
        raise DataError(f"{kind}: a figure is a mean, min, max, sum, ratio, difference, length or percent")
    return float(combine[kind](values))


def _lookup(source: str) -> Any:
    name, _, path = source.partition("#")
    found = _record(name)
    for part in filter(None, path.split("/")):
        key, _, choice = part.partition("[")
        try:
            found = found[key] if key else found
            if choice:
                found = _choose(found, choice.removesuffix("]"))
        except (KeyError, IndexError, TypeError):
            raise DataError(f"{source}: the record has no {part!r}") from None
    return found


def _choose(entries: Any, choice: str) -> Any:
    if choice.lstrip("-").isdigit():
        return entries[int(choice)]
    wanted = dict(pair.split("=", 1) for pair in choice.split(";"))
    (found,) = [e for e in entries if all(str(e[name]) == value for name, value in wanted.items())] or [None]
    if found is None:
        raise KeyError(choice)
    return found


@cache
def _record(name: str) -> Mapping[str, Any]:
    path = RECORDS / name
    if not path.is_file():
        raise DataError(f"{path}: no such record")
    whole: Mapping[str, Any] = read_json(path)
    return whole
