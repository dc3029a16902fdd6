"""The split that a column of the log states: train, valid or test."""

from dataclasses import dataclass

from recsys.datasets.splitting.parts import Division, SortedLog
from recsys.datasets.splitting.registry import register_split
from recsys.datasets.splitting.stated import stated
from recsys.errors import ArgumentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of parts.

    Attributes:
        split_column: its name.
    """

    split_column: str | None = None

    def __post_init__(self) -> None:
        if not self.split_column:
            raise ArgumentError("split='column' needs split_column=: name the column that says train or test")


@register_split("column", Column)
def column(log: SortedLog, config: Column) -> Division:
    """Events have the part that the column states."""
    return stated(log)
