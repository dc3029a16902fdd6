"""Options declared once, as fields of a dataclass, and taken as keywords by functions and commands."""

import inspect
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, TypeVar

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
