"""What `recsys train` without flags reaches on each log, beside the best recipe of the same encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.accuracy.recipes import Recipe
from recsys.benchmarks.accuracy.records import like, records_of
from recsys.encoders.registry import choices_for

__all__ = ["DEFAULT", "defaults_table"]

DEFAULT = "default"
"""Name of the recipe that says nothing but the encoder."""
REPEATING = 0.1
"""Share of repeats from which seen items are kept in the ranking."""


def defaults_table(recipes: Sequence[Recipe], results: Path) -> str:
    """A line for each log with a recipe `default`: its choices, NDCG@10, and the best recipe's."""
    lines = [
        "| log | training events | an item | a user | repeats | chosen | seen | default | best recipe "
        "| ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        if recipe.name == DEFAULT and recipe.dataset.statistics is not None:
            others = [one for one in recipes if one.dataset == recipe.dataset and one.name != DEFAULT]
            lines.append(_line(recipe, others, results))
    return "\n".join(lines) + "\n"


def _line(recipe: Recipe, others: Sequence[Recipe], results: Path) -> str:
    log = recipe.dataset.statistics
    assert log is not None
    seen = "kept" if log.repeats >= REPEATING else "removed"
    owner, records = like(results, recipe, others)
    own = _mean(records, seen)
    told = "no record" if own is None else f"{own:.4f}"
    if own is not None and owner is not recipe:
        told += f" (the settings of {owner.name})"
    best = max(
        ((mean, other.name) for other in others if (mean := _score(other, results, seen)) is not None),
        default=None,
    )
    cells = [recipe.dataset.name, f"{log.events:,}", f"{log.per_item:.1f}", f"{log.per_user:.1f}"]
    cells += [f"{log.repeats:.0%}", _chosen(recipe), seen, told]
    cells.append("no record" if best is None else f"{best[0]:.4f} ({best[1]})")
    cells.append("" if best is None or own is None else f"{own / best[0]:.3f}")
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
