"""Options declared once, as fields of a dataclass, and taken as keywords by functions and commands."""

import inspect
import numbers
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from typing import Any, TypeVar

from recsys.datasets.schema import nearest
from recsys.errors import ArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])


def option(default: Any, sentence: str) -> Any:
    """A field with its default and the sentence that `--help` shows for it."""
    return field(default=default, metadata={"help": sentence})


def takes(*kinds: type[Any]) -> Callable[[Function], Function]:
    """Decorate a function whose ``**options`` are the fields of some dataclasses: help and editors see each.

    Args:
        kinds: dataclasses, no two with a field of one name.
    """

    def declare(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *(keyword(one) for kind in kinds for one in fields(kind))]
        )
        return function

    return declare


def keyword(declared: Any) -> inspect.Parameter:
    """A dataclass field as a keyword-only parameter."""
    return inspect.Parameter(
        declared.name, inspect.Parameter.KEYWORD_ONLY, default=declared.default, annotation=declared.type
    )


def refuse_unknown(keywords: Mapping[str, Any], *kinds: type[Any]) -> None:
    """Refuse a keyword that is no field of any of the dataclasses.

    Raises:
        ArgumentError: it names the nearest, or all there are.
    """
    known = [one.name for kind in kinds for one in fields(kind)]
    for name in keywords:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean {close}=?" if close else f"known are {', '.join(known)}"
            raise ArgumentError(f"unexpected keyword {name!r}: {hint}")


def check_types(options: Any) -> None:
    """Refuse values of another type than their field's; numpy's numbers become plain ones.

    Raises:
        ArgumentError: it names the option.
    """
    words = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
    for one in fields(options):
        value: Any = getattr(options, one.name)
        allowed = set(typing.get_args(one.type)) or {one.type}
        if type(value) not in words and isinstance(value, numbers.Real):
            value = int(value) if isinstance(value, numbers.Integral) else float(value)
            object.__setattr__(options, one.name, value)  # as meta.json can hold it
        if Any in allowed or type(value) in allowed or (float in allowed and type(value) is int):
            continue
        wanted = " or ".join(words[kind] for kind in allowed if kind in words)
        raise ArgumentError(f"{one.name}={value!r} is of the wrong type: give {wanted}")


def column_names(given: Any, option: str) -> tuple[str, ...]:
    """Names of columns: a list of them, or text with commas between.

    Args:
        given: what was passed for the option; None for none.
        option: its name, for messages.

    Raises:
        ArgumentError: it is neither, or a name is empty or stands there twice.
    """
    if given is None:
        return ()
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, Sequence) or not all(isinstance(name, str) for name in parts):
        raise ArgumentError(f"{option}={given!r} names no columns: give names with commas between")
    names = tuple(name.strip() for name in parts)
    if not names or not all(names):
        raise ArgumentError(f"{option}={given!r} has an empty name: give names with commas between")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ArgumentError(f"{option}={given!r} names {twice!r} twice: name each column once")
    return names
