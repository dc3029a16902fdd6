"""Short tables for README and docs: `tuned` beside `paper`, what sets them apart, and what was published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.accuracy.recipes import Recipe, read_recipes
from recsys.benchmarks.accuracy.records import COMPARISONS, records_of
from recsys.benchmarks.accuracy.tables import METRICS, means, pair_of, reached
from recsys.files import read_json

__all__ = ["bars_table", "items_table", "presets_table", "published_table", "results_table"]

LOGS = {"ml-100k": "ML-100K", "ml-1m-sasrec-order": "ML-1M", "amazon-beauty-5core": "Beauty"}
ENCODERS = ("sasrec", "bert4rec", "mamba")
NO_RECORD = "no record"
NAMES = {
    "block": "block",
    "positions": "positions",
    "loss": "loss",
    "ema_decay": "averaging of weights",
    "repeat_bias": "repeat bias, buckets",
    "patience": "evaluations without gain before the end",
    "evaluate_every": "epochs between evaluations",
}
"""The settings that set the networks apart most; the others are in the records."""


def results_table(results: Path) -> str:
    """HR@10 / NDCG@10 of each log and encoder under both presets and seen rules; popularity below."""
    lines = [
        "| log | encoder | `tuned`, seen kept | seen removed | `paper`, seen kept | seen removed |",
        "|---|---|---|---|---|---|",
    ]
    for dataset, title in LOGS.items():
        known = {recipe.name: records_of(results, recipe) for recipe in read_recipes([dataset])}
        for encoder in ENCODERS:
            cells = [
                _mean(known.get(f"{encoder}-{preset}", []), seen)
                for preset in ("tuned", "paper")
                for seen in ("kept", "removed")
            ]
            lines.append(f"| {title} | {encoder} | {' | '.join(cells)} |")
        first = next(records[0] for records in known.values() if records)
        popular = [_two(first["result"]["popularity"][seen]) for seen in ("kept", "removed")]
        lines.append(f"| {title} | popularity | {' | '.join(popular)} | | |")
    return "\n".join(lines) + "\n"


def items_table(results: Path) -> str:
    """Ids alone against ids and what is known of the items: a line for each log that has both recipes.

    HR@10 / NDCG@10 with seen items removed; NDCG@10 of head, middle and tail by the log's own protocol.
    """
    parts = ("head", "middle", "tail")
    lines = [
        "| log | known of the items | seeds | HR@10 / NDCG@10 | " + " | ".join(parts) + " | p |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dataset in dict.fromkeys(recipe.dataset.name for recipe in read_recipes()):
        known = {recipe.name: recipe for recipe in read_recipes([dataset])}
        if not {"items-id", "items-tags"} <= known.keys():
            continue
        for name in ("items-id", "items-tags"):
            records = records_of(results, known[name])
            cells = [dataset, _known_of(known[name]), str(len(records))]
            cells.append(_mean(records, "removed"))
            cells += [_slice(records, part) for part in parts]
            cells.append(_p(results / dataset) if name == "items-tags" else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _slice(records: Sequence[Mapping[str, Any]], part: str) -> str:
    found = [record["result"]["slices"]["popularity"].get(part, {}).get("ndcg@10") for record in records]
    values = [value for value in found if value is not None]
    return f"{np.mean(values):.4f}" if values else ""


def _p(folder: Path) -> str:
    """The p of the paired test between the two recipes, seen items removed."""
    pairs = read_json(folder / COMPARISONS)["pairs"]
    pair = next(p for p in pairs if (p["a"], p["b"], p["seen"]) == ("items-id", "items-tags", "removed"))
    return f"{pair['p_value']:.4f}"


def published_table(dataset: str, results: Path) -> str:
    """A log's tuned encoders and baselines under both seen rules, beside what was published of their kind."""
    lines = [
        "| model | seeds | seen kept | seen removed | published | `paper` preset, same seen rule |",
        "|---|---|---|---|---|---|",
    ]
    recipes = {recipe.name: recipe for recipe in read_recipes([dataset])}
    baselines = [name for name, recipe in recipes.items() if recipe.is_baseline]
    for name in (*(f"{encoder}-tuned" for encoder in ENCODERS), *sorted(baselines)):
        records = records_of(results, recipes[name]) if name in recipes else []
        if not records:
            continue
        recipe = recipes[name]
        ours = recipes.get(f"{recipe.model}-paper")
        strongest = max(recipe.published, key=lambda figure: figure.ndcg, default=None)
        told, beside = "", ""
        if strongest is not None:
            told = f"{pair_of(strongest)}, seen {strongest.seen} ({strongest.name})"
            beside = _mean([] if ours is None else records_of(results, ours), strongest.seen)
        seeds = "" if recipe.is_baseline else str(len(records))
        cells = [recipe.model, seeds, _mean(records, "kept"), _mean(records, "removed"), told, beside]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def bars_table(recipes: Sequence[Recipe], results: Path) -> str:
    """The recipes that have a bar and a record, beside it, under the bar's seen rule."""
    lines = [
        "| log | recipe | known of the items | seeds | ours | published | bar | reached |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe in recipes:
        records, bar = records_of(results, recipe), recipe.bar
        if bar is None or not records:
            continue
        ours = means(records, bar.seen)
        published = "; ".join(
            f"{pair_of(figure)} ({figure.name})" for figure in recipe.published if figure.seen == bar.seen
        )
        cells = [recipe.dataset.name, recipe.name, _known_of(recipe), str(len(records)), _two(ours)]
        cells += [published, pair_of(bar), reached(bar, ours)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _known_of(recipe: Recipe) -> str:
    return ", ".join(map(str, recipe.items.values())) or "ids"


def presets_table() -> str:
    """What sets `paper` and `tuned` apart, a line for each setting, on ML-100K."""
    lines = ["| setting | " + " | ".join(f"{encoder}, `paper` | `tuned`" for encoder in ENCODERS) + " |"]
    lines.append("|---" * (1 + 2 * len(ENCODERS)) + "|")
    settings = {
        (encoder, preset): _settings(read_recipes([f"ml-100k/{encoder}-{preset}"])[0])
        for encoder in ENCODERS
        for preset in ("paper", "tuned")
    }
    for key, title in NAMES.items():
        cells = [
            _shown(key, settings[encoder, preset]) for encoder in ENCODERS for preset in ("paper", "tuned")
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _settings(recipe: Recipe) -> Mapping[str, Any]:
    whole = recipe.configuration(0)
    return {**whole["encoder"], **whole["training"]}


def _shown(key: str, settings: Mapping[str, Any]) -> str:
    value = settings.get(key, "none")
    if key == "loss":
        return {"auto": "full softmax", "full": "full softmax", "bce": "BCE, one negative"}.get(
            value, str(value)
        )
    return "none" if value == 0 else str(value)


def _mean(records: Sequence[Mapping[str, Any]], seen: str) -> str:
    if not records:
        return NO_RECORD
    return _two(means(records, seen))


def _two(metrics: Mapping[str, float]) -> str:
    return " / ".join(f"{metrics[name]:.4f}" for name in METRICS)
