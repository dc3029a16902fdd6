"""Records of finished runs: where they lie, whether they are up to date, and the paired tests among them."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.benchmarks.accuracy.recipes import Recipe
from recsys.benchmarks.accuracy.running import read_ranks
from recsys.evaluation.bootstrap import paired_difference
from recsys.evaluation.metrics import per_user_metrics
from recsys.files import read_json, write_json

__all__ = ["COMPARISONS", "compare", "current", "like", "record_path", "records_of"]

COMPARISONS = "comparisons.json"
SEEN_RULES = ("kept", "removed")
_METRIC = "ndcg@10"


def record_path(results: Path, recipe: Recipe, seed: int) -> Path:
    """Where the record of a recipe with a seed lies."""
    return results / recipe.dataset.name / f"{recipe.name}-seed{seed}.json"


def current(results: Path, recipe: Recipe, seed: int) -> dict[str, Any] | None:
    """The record, if there is one and it was made with this recipe's file and configuration."""
    path = record_path(results, recipe, seed)
    if not path.exists():
        return None
    record = read_json(path)
    same = record.get("dataset", {}).get("sha256") == recipe.dataset.sha256
    same = same and recipe.matches(record.get("configuration"), seed)
    return record if same else None


def records_of(results: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Up-to-date records of a recipe, by seed."""
    found = (current(results, recipe, seed) for seed in recipe.seeds)
    return [record for record in found if record is not None]


def like(results: Path, recipe: Recipe, others: Sequence[Recipe]) -> tuple[Recipe, list[dict[str, Any]]]:
    """A recipe's records; where it has none, those of another recipe that comes to the same settings.

    Args:
        results: folder of the records.
        recipe: whose records are asked for.
        others: recipes of the same dataset.

    Returns:
        Whose they are, and the records, none at all if nobody has any.
    """
    own = records_of(results, recipe)
    for other in others:
        if not own and other.model == recipe.model and not other.is_baseline:
            found = records_of(results, other)
            if found and recipe.matches(found[0]["configuration"], found[0]["seed"]):
                return other, found
    return recipe, own


def compare(
    recipes: Sequence[Recipe], results: Path, runs: Path, *, resamples: int = 10_000
) -> dict[str, Any] | None:
    """Paired tests of NDCG@10 between every two recipes of one dataset, on the same users.

    With several seeds a user's metric is the mean over them. Needs the ranks beside the runs; a recipe whose
    ranks lie on another machine is left out, and what the committed file says of it stays.

    Args:
        recipes: of one dataset.
        results: folder of the records.
        runs: folder of the runs.
        resamples: of the bootstrap.

    Returns:
        What was written, or None if there was nothing to compare.
    """
    values = {recipe.name: _per_user(recipe, results, runs) for recipe in recipes}
    known = {name: found for name, found in values.items() if found is not None}
    path = results / recipes[0].dataset.name / COMPARISONS
    pairs: list[dict[str, Any]] = read_json(path)["pairs"] if path.exists() else []
    fresh = []
    for (first, a), (second, b) in combinations(known.items(), 2):
        if not np.array_equal(a["user"], b["user"]):
            continue
        for seen in SEEN_RULES:
            tested = paired_difference(a[seen], b[seen], np.random.default_rng(0), resamples=resamples)
            facts = {"a": first, "b": second, "seen": seen, "metric": _METRIC, **tested._asdict()}
            fresh.append(facts | {"seeds": {first: a["seeds"], second: b["seeds"]}})
    if not fresh:
        return None
    names = {recipe.name for recipe in recipes}
    done = {(pair["a"], pair["b"]) for pair in fresh}
    kept = [pair for pair in pairs if (pair["a"], pair["b"]) not in done and {pair["a"], pair["b"]} <= names]
    whole = {"resamples": resamples, "pairs": sorted(kept + fresh, key=_place)}
    write_json(path, whole)
    return whole


def _place(pair: dict[str, Any]) -> tuple[str, str, str]:
    return str(pair["a"]), str(pair["b"]), str(pair["seen"])


def _per_user(recipe: Recipe, results: Path, runs: Path) -> dict[str, Any] | None:
    """NDCG@10 of each user under both rules, averaged over the seeds whose ranks are here."""
    seeds: list[int] = []
    found: dict[str, list[NDArray[np.float64]]] = {seen: [] for seen in SEEN_RULES}
    user = None
    for seed in recipe.seeds:
        if current(results, recipe, seed) is None:
            continue
        ranks = read_ranks(runs / recipe.dataset.name / recipe.run_name(seed))
        if ranks is None or (user is not None and not np.array_equal(user, ranks["user"])):
            continue
        user = ranks["user"]
        seeds.append(seed)
        for seen in SEEN_RULES:
            found[seen].append(per_user_metrics(ranks[seen], None, (10,))[_METRIC])
    if not seeds:
        return None
    return {"user": user, "seeds": seeds, **{seen: np.mean(values, axis=0) for seen, values in found.items()}}
