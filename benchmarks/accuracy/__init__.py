"""``recsys bench accuracy``: recipes trained, tested, recorded and put beside what was published.

See README.md in this folder for recipes, records and the tables' columns.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recsys.benchmarks import folders
from recsys.benchmarks.accuracy.defaults import DEFAULT, defaults_summary
from recsys.benchmarks.accuracy.places import locked, prepared_log
from recsys.benchmarks.accuracy.recipes import FOLDER, Recipe, read_recipes
from recsys.benchmarks.accuracy.records import compare, current, record_path
from recsys.benchmarks.accuracy.running import run_one
from recsys.benchmarks.accuracy.summary import results_table
from recsys.benchmarks.accuracy.tables import replace_section, section, write_tables
from recsys.files import write_json, write_text

__all__ = [
    "README",
    "README_RECIPES",
    "RESULTS",
    "TABLES",
    "record_line",
    "run",
    "status_lines",
    "write_all_tables",
]

RESULTS = folders.RESULTS / "accuracy"
RECORDS = folders.RECORDS / "accuracy"
TABLES = RESULTS / "README.md" if folders.CHECKOUT is None else folders.CHECKOUT / "benchmarks" / "README.md"
README = None if folders.CHECKOUT is None else folders.CHECKOUT / "README.md"
README_RECIPES = ("ml-100k/sasrec-tuned", "ml-100k/bert4rec-tuned", "ml-100k/mamba-tuned")


def run(
    names: Sequence[str] = (),
    *,
    data: Path | None,
    runs: Path,
    results: Path = RESULTS,
    folder: Path = FOLDER,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    backend: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Do what is not done yet of the named recipes, in order.

    Args:
        names: as `read_recipes` takes them.
        data: where the logs lie; None for those known by name.
        runs: folder of prepared logs and runs.
        results: folder of the records.
        folder: of the recipes.
        seeds: of the recipes' seeds only these; None for all.
        device: auto, cpu or cuda.
        backend: kernels to run on.
        say: told what happens.

    Returns:
        The records, old and new.

    Raises:
        RunError: another process works on the same run.
    """
    recipes = read_recipes(names, folder)
    records = []
    for recipe in recipes:
        for seed in recipe.seeds:
            if seeds is not None and seed not in seeds:
                continue
            record = current(results, recipe, seed)
            if record is None:
                store = prepared_log(recipe, data, runs, say)
                say(f"{recipe.id}, seed {seed}:")
                place = runs / recipe.dataset.name / recipe.run_name(seed)
                with locked(place):
                    record = run_one(recipe, seed, store, place, device=device, backend=backend, say=say)
                write_json(record_path(results, recipe, seed), record)
            else:
                say(f"{recipe.id}, seed {seed}: done before")
            records.append(record)
    for group in _by_dataset([*recipes, *read_recipes(folder=folder)]):
        if group[0].dataset.name in {recipe.dataset.name for recipe in recipes}:
            compare(group, results, runs)
    return records


def status_lines(results: Path = RESULTS, folder: Path = FOLDER) -> list[str]:
    """A line for every recipe with each of its seeds: its figures, or that it is not done.

    Where `results` has no record but the package does, its line says so. The last line compares the defaults.
    """
    lines = []
    recipes = read_recipes(folder=folder)
    for recipe in recipes:
        for seed in recipe.seeds:
            record = current(results, recipe, seed)
            ours = current(RECORDS, recipe, seed) if record is None else None
            if record is not None:
                lines.append(record_line(record))
            elif ours is not None:
                lines.append(f"{record_line(ours)} (record of the package)")
            else:
                lines.append(f"{recipe.id}, seed {seed}: not done")
    if any(recipe.name == DEFAULT for recipe in recipes):
        lines.append(f"`recsys train` without flags: {defaults_summary(recipes, results)}")
    return lines


def record_line(record: dict[str, Any]) -> str:
    """A record's figures in a line."""
    cells = []
    for seen in ("kept", "removed"):
        metrics = record["result"][f"metrics_seen_{seen}"]
        cells.append(f"seen {seen} HR@10 {metrics['hr@10']:.4f} NDCG@10 {metrics['ndcg@10']:.4f}")
    return f"{record['recipe']}, seed {record['seed']}: {'; '.join(cells)}"


def write_all_tables(results: Path = RESULTS, tables: Path = TABLES, readme: Path | None = None) -> None:
    """Write the tables of all records, and with `readme` the short table there.

    Args:
        results: folder of the records.
        tables: page with the marks of the section "accuracy"; made where there is none.
        readme: page with those of "results", or None.
    """
    if not tables.exists():
        write_text(tables, section("accuracy", ""))
    write_tables(tables, read_recipes(), results)
    if readme is not None:
        replace_section(readme, "results", results_table(results))


def _by_dataset(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    groups: dict[str, dict[str, Recipe]] = {}
    for recipe in recipes:
        groups.setdefault(recipe.dataset.name, {}).setdefault(recipe.name, recipe)
    return [[group[name] for name in sorted(group)] for group in groups.values()]
