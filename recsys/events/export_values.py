"""What came with events as the further columns of an exported log."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recsys.datasets.preparing.event_values import numbers_of
from recsys.events.event_columns import RESERVED, word_of
from recsys.events.store import Event

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ExportValues"]


class ExportValues:
    """Columns of text; a column that holds numbers in the older log goes on holding nothing else.

    Attributes:
        names: of the columns.
    """

    def __init__(self, old: "pl.DataFrame | None", names: tuple[str, ...]) -> None:
        self.names = names
        self._of_numbers = {
            name
            for name in ([] if old is None else old.columns)
            if old is not None
            and name not in RESERVED
            and numbers_of(old[name].str.strip_chars()) is not None
        }
        self._left_out: Counter[str] = Counter()

    @property
    def no_numbers(self) -> dict[str, int]:
        """By column, how many values were left out so far."""
        return dict(self._left_out)

    def of(self, events: Sequence[Event]) -> dict[str, list[str | None]]:
        """Values of events, by column."""
        return {name: self._column(name, events) for name in self.names}

    def _column(self, name: str, events: Sequence[Event]) -> list[str | None]:
        import polars as pl

        given = [None if event.columns is None else event.columns.get(name) for event in events]
        if name not in self._of_numbers:
            return [word_of(value) for value in given]
        # True is 1 for a model that reads numbers.
        words = [word_of(int(value) if isinstance(value, bool) else value) for value in given]
        column = pl.Series(words, dtype=pl.String)
        text = column.str.strip_chars()
        numbers = text.cast(pl.Float64, strict=False)
        odd = (text != "").fill_null(False) & (numbers.is_null() | numbers.is_infinite().fill_null(False))
        if odd.any():
            self._left_out[name] += int(odd.sum())
            column = column.set(odd, None)
        return column.to_list()
