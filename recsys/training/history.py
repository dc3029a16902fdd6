"""What the epochs of a run were like, as a list that shows itself in a few words."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recsys.errors import RunError
from recsys.notebook.html import html_table
from recsys.training.config import SELECTION_METRIC

__all__ = ["History", "read_history"]


class History(list[dict[str, Any]]):
    """One record per epoch, as in ``metrics.jsonl``.

    Args:
        records: of the epochs, in order.
        select: name of the validation metric by which weights were kept.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = (), select: str = SELECTION_METRIC) -> None:
        super().__init__(records)
        self.select = select

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the epoch whose weights were kept; None if none was validated."""
        scored = [record for record in self if self.select in record.get("valid", {})]
        return max(scored, key=lambda record: float(record["valid"][self.select]), default=None)

    def __repr__(self) -> str:
        return f"History({self.summary()})"

    def summary(self) -> str:
        """How many epochs, how the loss went, and which was the best, in a few words."""
        if not self:
            return "no epochs"
        words = f"{len(self)} epoch{'s' if len(self) > 1 else ''}, loss {self[0]['loss']:.4f}"
        if len(self) > 1:
            words += f" to {self[-1]['loss']:.4f}"
        best = self.best
        if best is not None:
            words += f", best valid {self.select} {best['valid'][self.select]:.4f} in epoch {best['epoch']}"
        return words

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(("hr@10", "ndcg@10", self.select)))
        losses = any("validation_loss" in record for record in self)
        header = ["epoch", "loss", *(["valid loss"] if losses else []), *names, "seconds"]
        rows = []
        for record in self:
            valid = record.get("valid", {})
            cells = [f"{record['loss']:.4f}"]
            if losses:
                cells.append(_figure(record.get("validation_loss")))
            cells += [_figure(valid.get(name)) for name in names]
            rows.append([record["epoch"], *cells, f"{record['seconds']:.1f}"])
        return html_table(self.summary(), header, rows)


def read_history(path: Path, select: str = SELECTION_METRIC) -> History:
    """The history of a run from its ``metrics.jsonl``; empty where there is none.

    Raises:
        RunError: a line is no record of an epoch.
    """
    if not path.exists():
        return History(select=select)
    records = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not {"epoch", "loss", "seconds"} <= set(record):
                raise ValueError
        except (ValueError, TypeError):
            raise RunError(
                f"{path}: line {number} is not the record of an epoch; delete the file, which tells of the "
                "training alone, or take it from a copy of the run"
            ) from None
        records.append(record)
    return History(records, select)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
