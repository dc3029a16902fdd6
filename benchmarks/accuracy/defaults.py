"""What `recsys train` without flags reaches on each log, beside the best recipe of any encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.accuracy.recipes import Recipe
from recsys.benchmarks.accuracy.records import like, records_of
from recsys.encoders.registry import choices_for

__all__ = ["DEFAULT", "WITHIN", "defaults_summary", "defaults_table"]

DEFAULT = "default"
"""Name of the recipe that says nothing but the encoder."""
REPEATING = 0.03
"""Share of repeats in training from which seen items stay in the ranking. Where they go, all but the target,
a repeated target has no rival of its kind left, and a few of these outweigh all others."""

WITHIN = 0.03
"""Share of the best recipe's NDCG@10 that the default may lack."""


@dataclass(frozen=True)
class _Line:
    """A log's figures under its seen rule; None where there is no record.

    Attributes:
        recipe: its `default`.
        owner: whose records `own` is of: the default's, or those of a recipe of the same settings.
        own, best: NDCG@10.
        best_name: the recipe that `best` is of.
    """

    recipe: Recipe
    seen: str
    owner: Recipe
    own: float | None
    best: float | None
    best_name: str

    @property
    def ratio(self) -> float | None:
        return None if self.own is None or self.best is None else self.own / self.best


def defaults_table(recipes: Sequence[Recipe], results: Path) -> str:
    """A line for each log with a recipe `default`: its choices, NDCG@10, and the best recipe's."""
    lines = [
        "| log | training events | an item | a user | repeats | chosen | seen | default | best recipe "
        "| ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return (
        "\n".join([*lines, *map(_row, _found(recipes, results))])
        + f"\n\n{defaults_summary(recipes, results)}\n"
    )


def defaults_summary(recipes: Sequence[Recipe], results: Path) -> str:
    """In words: on how many logs the default is within `WITHIN` of the best recipe, and where it is not."""
    ratios = {one.recipe.dataset.name: one.ratio for one in _found(recipes, results)}
    known = {name: ratio for name, ratio in ratios.items() if ratio is not None}
    short = [f"{name} ({ratio:.4f})" for name, ratio in known.items() if ratio < 1 - WITHIN]
    said = f"Within {WITHIN:.0%} of the best recipe, or above it, on {len(known) - len(short)} of the "
    said += f"{len(known)} logs with both records"
    said += f"; not on {', '.join(short)}" if short else ""
    lacking = [name for name in ratios if name not in known]
    return f"{said}. Without one of the two: {', '.join(lacking)}." if lacking else f"{said}."


def _found(recipes: Sequence[Recipe], results: Path) -> list[_Line]:
    lines = []
    for recipe in recipes:
        log = recipe.dataset.statistics
        if recipe.name == DEFAULT and log is not None:
            others = [one for one in recipes if one.dataset == recipe.dataset and one.name != DEFAULT]
            seen = "kept" if log.repeats >= REPEATING else "removed"
            owner, records = like(results, recipe, others)
            scores = {other.name: _score(other, results, seen) for other in others}
            reached = {name: score for name, score in scores.items() if score is not None}
            name = max(reached, key=lambda name: reached[name], default="")
            best = reached.get(name)
            lines.append(_Line(recipe, seen, owner, _mean(records, seen), best, name))
    return lines


def _row(line: _Line) -> str:
    log = line.recipe.dataset.statistics
    assert log is not None
    told = "no record" if line.own is None else f"{line.own:.4f}"
    if line.own is not None and line.owner is not line.recipe:
        told += f" (the settings of {line.owner.name})"
    cells = [line.recipe.dataset.name, f"{log.events:,}", f"{log.per_item:.1f}", f"{log.per_user:.1f}"]
    cells += [f"{log.repeats:.0%}", _chosen(line.recipe), line.seen, told]
    cells.append("no record" if line.best is None else f"{line.best:.4f} ({line.best_name})")
    cells.append("" if line.ratio is None else f"{line.ratio:.3f}")
    return f"| {' | '.join(cells)} |"


def _score(recipe: Recipe, results: Path, seen: str) -> float | None:
    """NDCG@10 of a recipe that reads nothing but the log, and is trained."""
    return None if recipe.is_baseline or recipe.items else _mean(records_of(results, recipe), seen)


def _mean(records: Sequence[dict[str, Any]], seen: str) -> float | None:
    values = [record["result"][f"metrics_seen_{seen}"]["ndcg@10"] for record in records]
    return float(np.mean(values)) if values else None


def _chosen(recipe: Recipe) -> str:
    log = recipe.dataset.statistics
    assert log is not None
    settings: dict[str, Any] = {}
    for choice in choices_for(recipe.model, recipe.preset, log):
        settings |= {**choice.encoder, **choice.training}
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "the preset as it is"
