"""Markdown tables from the records, each between two marks of a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.accuracy.recipes import Figure, Recipe
from recsys.benchmarks.accuracy.records import COMPARISONS, records_of
from recsys.errors import DataError
from recsys.files import read_json, write_text

__all__ = [
    "all_tables",
    "dataset_tables",
    "means",
    "pair_of",
    "quality_table",
    "reached",
    "replace_section",
    "section",
    "write_tables",
]

METRICS = ("hr@10", "ndcg@10")
KEPT = (
    "it takes what the window holds nearly out of the ranking, which no published figure with seen items "
    "kept has: those are to be compared with the paper rows"
)


def write_tables(path: Path, recipes: Sequence[Recipe], results: Path) -> None:
    """Replace the section ``accuracy`` of a Markdown file by the tables of all datasets that have records.

    Raises:
        DataError: the file lacks the marks.
    """
    replace_section(path, "accuracy", all_tables(recipes, results))


def all_tables(recipes: Sequence[Recipe], results: Path) -> str:
    """The tables of all datasets that have records."""
    by_dataset: dict[str, list[Recipe]] = {}
    for recipe in recipes:
        by_dataset.setdefault(recipe.dataset.name, []).append(recipe)
    parts = [dataset_tables(group, results) for group in by_dataset.values()]
    return "\n".join(part for part in parts if part)


def replace_section(path: Path, name: str, text: str) -> None:
    """Put text between ``<!-- table:NAME -->`` and ``<!-- /table:NAME -->``.

    Raises:
        DataError: the file lacks one of the marks.
    """
    begin, end = _delimiters(name)
    whole = path.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise DataError(f"{path}: lacks the marks {begin} and {end}, between which the table goes")
    write_text(path, f"{before}{section(name, text)}{after}")


def section(name: str, text: str) -> str:
    """Text between its marks."""
    begin, end = _delimiters(name)
    return f"{begin}\n{text}{end}"


def _delimiters(name: str) -> tuple[str, str]:
    return f"<!-- table:{name} -->", f"<!-- /table:{name} -->"


def dataset_tables(recipes: Sequence[Recipe], results: Path) -> str:
    """The tables of one dataset: figures, then paired tests; "" without a record."""
    known = [(recipe, records_of(results, recipe)) for recipe in recipes]
    known = [(recipe, records) for recipe, records in known if records]
    if not known:
        return ""
    dataset = recipes[0].dataset
    lines = [f"### {dataset.name}", "", dataset.about, ""]
    lines += [
        "| recipe | seeds | seen | HR@10 | NDCG@10 | over tie orders | published | bar | reached | aim "
        "| epochs | training | memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe, records in known:
        lines += [_row(recipe, records, seen) for seen in ("kept", "removed")]
    lines += _popularity(known[0][1][0])
    tests = _tests(results / dataset.name / COMPARISONS, [recipe.name for recipe, _ in known])
    notes = _notes(known)
    return "\n".join([*lines, *notes, *tests]) + "\n"


def quality_table(recipes: Sequence[Recipe], results: Path) -> str:
    """The short table of the README: the encoders' first seeds and popularity."""
    lines = [
        "| encoder | HR@10, seen kept | NDCG@10 | HR@10, seen removed | NDCG@10 | epochs | training |",
        "|---|---|---|---|---|---|---|",
    ]
    shown = [(recipe, records_of(results, recipe)) for recipe in recipes if not recipe.is_baseline]
    shown = [(recipe, records) for recipe, records in shown if records]
    for recipe, records in shown:
        result = records[0]["result"]
        cells = [_pair(result["metrics_seen_kept"]), _pair(result["metrics_seen_removed"])]
        flat = [cell for pair in cells for cell in pair]
        flat += [str(records[0]["epochs"]), f"{records[0]['training_seconds']:.0f} s"]
        lines.append(f"| {recipe.model} | {' | '.join(flat)} |")
    if shown:
        popularity = shown[0][1][0]["result"]["popularity"]
        flat = [cell for seen in ("kept", "removed") for cell in _pair(popularity[seen])]
        lines.append(f"| popularity | {' | '.join(flat)} | | |")
    return "\n".join(lines) + "\n"


def _pair(metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics[name]:.4f}" for name in METRICS]


def _row(recipe: Recipe, records: Sequence[dict[str, Any]], seen: str) -> str:
    mean = means(records, seen)
    cells = [recipe.name, ", ".join(str(record["seed"]) for record in records), seen]
    cells += [_figure(records, seen, name, mean[name]) for name in METRICS]
    cells.append(_over_orders(records, seen))
    published = next((figure for figure in recipe.published if figure.seen == seen), None)
    cells.append("" if published is None else f"{pair_of(published)} {published.name}")
    bar = recipe.bar if recipe.bar is not None and recipe.bar.seen == seen else None
    cells += ["" if bar is None else pair_of(bar), "" if bar is None else reached(bar, mean)]
    aim = recipe.aim if recipe.aim is not None and recipe.aim.seen == seen else None
    cells.append("" if aim is None else f"{pair_of(aim)}: {reached(aim, mean)}")
    epochs = [record["epochs"] for record in records if "epochs" in record]
    cells.append("" if not epochs else _span(epochs, "{:.0f}"))
    cells.append(_span([record["training_seconds"] for record in records], "{:,.0f} s"))
    memory = [r["peak_memory_mib"] for r in records if r.get("peak_memory_mib") is not None]
    cells.append("" if not memory else f"{max(memory):,.0f} MiB")
    return "| " + " | ".join(cells) + " |"


def _figure(records: Sequence[dict[str, Any]], seen: str, metric: str, mean: float) -> str:
    """The mean over seeds, its 95% interval over users, and the seeds' range where there are several."""
    text = f"{mean:.4f}"
    intervals = [record.get("intervals", {}).get(seen, {}).get(metric) for record in records]
    ends = [interval for interval in intervals if interval is not None]
    if len(ends) == len(records):
        # The mean of the seeds' intervals: users are resampled, seeds are not.
        low, high = np.mean(ends, axis=0)
        text += f" ({low:.4f} to {high:.4f})"
    if len(records) > 1:
        values = [_metrics(record, seen)[metric] for record in records]
        text += f", seeds {min(values):.4f} to {max(values):.4f}"
    return text


def _over_orders(records: Sequence[dict[str, Any]], seen: str) -> str:
    found = [record["tie_orders"][f"metrics_seen_{seen}"] for record in records if record.get("tie_orders")]
    if len(found) < len(records):
        return ""
    return " / ".join(f"{np.mean([metrics[name] for metrics in found]):.4f}" for name in METRICS)


def _metrics(record: Mapping[str, Any], seen: str) -> Mapping[str, float]:
    found: Mapping[str, float] = record["result"][f"metrics_seen_{seen}"]
    return found


def means(records: Sequence[Mapping[str, Any]], seen: str) -> dict[str, float]:
    """``hr@10`` and ``ndcg@10`` under a seen rule, each the mean of some records."""
    return {name: float(np.mean([_metrics(record, seen)[name] for record in records])) for name in METRICS}


def pair_of(figure: Figure) -> str:
    """HR@10 and NDCG@10 as the tables have them."""
    return f"{figure.hr:.4f} / {figure.ndcg:.4f}"


def reached(figure: Figure, mean: Mapping[str, float]) -> str:
    """Whether the means of ``hr@10`` and ``ndcg@10`` come up to a figure, in a word."""
    hr, ndcg = mean["hr@10"] >= figure.hr, mean["ndcg@10"] >= figure.ndcg
    if hr and ndcg:
        return "yes"
    if hr or ndcg:
        return "HR@10 alone" if hr else "NDCG@10 alone"
    return "no"


def _span(values: Sequence[float], form: str) -> str:
    low, high = form.format(min(values)), form.format(max(values))
    return low if low == high else f"{low} to {high}"


def _popularity(record: dict[str, Any]) -> list[str]:
    rows = []
    for seen, metrics in record["result"]["popularity"].items():
        cells = ["popularity", "", seen, *_pair(metrics), *[""] * 8]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _notes(known: Sequence[tuple[Recipe, Sequence[dict[str, Any]]]]) -> list[str]:
    found = [f"- {recipe.name}: {recipe.note}" for recipe, _ in known if recipe.note]
    biased = [recipe.name for recipe, _ in known if _has_repeat_bias(recipe)]
    if biased and any(figure.seen == "kept" for recipe, _ in known for figure in recipe.published):
        found.append(f"- {', '.join(biased)}: with a repeat bias; {KEPT}")
    sources: dict[str, None] = {}
    for recipe, _ in known:
        for figure in recipe.published:
            sources[f"- {figure.name}, seen {figure.seen}, {pair_of(figure)}: {figure.source}"] = None
    return ["", *found, *sources] if found or sources else []


def _has_repeat_bias(recipe: Recipe) -> bool:
    return not recipe.is_baseline and bool(recipe.configuration(recipe.seeds[0])["encoder"]["repeat_bias"])


def _tests(path: Path, names: Sequence[str]) -> list[str]:
    if not path.exists():
        return []
    whole = read_json(path)
    pairs = [pair for pair in whole["pairs"] if pair["a"] in names and pair["b"] in names]
    if not pairs:
        return []
    lines = ["", f"Paired bootstrap over users, {whole['resamples']:,} resamples, NDCG@10:", ""]
    lines += ["| pair | seen | difference | 95% interval | p |", "|---|---|---|---|---|"]
    for pair in pairs:
        lines.append(
            f"| {pair['a']} - {pair['b']} | {pair['seen']} | {pair['difference']:+.4f} "
            f"| {pair['low']:+.4f} to {pair['high']:+.4f} | {pair['p_value']:.4f} |"
        )
    return lines
