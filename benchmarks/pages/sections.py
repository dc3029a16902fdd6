"""Tables of pages that are made from the records alone, each between two marks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from recsys.benchmarks import accuracy
from recsys.benchmarks.accuracy.defaults import defaults_table
from recsys.benchmarks.accuracy.recipes import read_recipes
from recsys.benchmarks.accuracy.summary import (
    bars_table,
    items_table,
    presets_table,
    published_table,
    results_table,
)
from recsys.benchmarks.accuracy.tables import all_tables, quality_table, section
from recsys.benchmarks.clock.recipes import recipes_table
from recsys.benchmarks.clock.report import study_tables
from recsys.benchmarks.columns.table import columns_table
from recsys.benchmarks.folders import RECORDS
from recsys.benchmarks.pages import serving, tables
from recsys.benchmarks.pages.throughput import throughput
from recsys.errors import DataError
from recsys.files import write_text

__all__ = ["SECTIONS", "stale", "write"]

ACCURACY = RECORDS / "accuracy"
S3REC = ("beauty-s3rec-order", "lastfm-s3rec-order")


def _ml_100k() -> str:
    return quality_table(read_recipes(accuracy.README_RECIPES), ACCURACY)


SECTIONS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("README.md", "results"): lambda: results_table(ACCURACY),
    ("benchmarks/README.md", "throughput"): throughput,
    ("benchmarks/README.md", "accuracy"): lambda: all_tables(read_recipes(), ACCURACY),
    ("docs/results.md", "ml-100k"): _ml_100k,
    ("docs/results.md", "ml-1m"): lambda: published_table("ml-1m-sasrec-order", ACCURACY),
    ("docs/results.md", "beauty"): lambda: published_table("amazon-beauty-5core", ACCURACY),
    ("docs/results.md", "presets"): presets_table,
    ("docs/results.md", "ml-1m-order"): lambda: bars_table(read_recipes(["ml-1m-order"]), ACCURACY),
    ("docs/results.md", "s3rec"): lambda: bars_table(read_recipes(S3REC), ACCURACY),
    ("docs/results.md", "items"): lambda: items_table(ACCURACY),
    ("docs/experiments.md", "neighbours"): tables.neighbours,
    ("docs/results.md", "columns"): lambda: columns_table(tables.record("columns")),
    ("docs/results.md", "defaults"): lambda: defaults_table(read_recipes(), ACCURACY),
    ("docs/results.md", "peers"): tables.training_peers,
    ("docs/clock.md", "clock-study"): lambda: study_tables(tables.record("clock-study")),
    ("docs/clock.md", "clock-recipes"): lambda: recipes_table(tables.record("clock-recipes")),
    ("docs/kernels.md", "clock-errors"): tables.clock_errors,
    ("docs/kernels.md", "clock-times"): tables.clock_times,
    ("benchmarks/peers/README.md", "quality"): tables.peers_quality,
    ("benchmarks/peers/README.md", "quality-costs"): tables.peers_costs,
    ("docs/retrieval.md", "latency"): tables.latency,
    ("docs/retrieval.md", "filters"): tables.filters,
    ("docs/retrieval.md", "servers"): tables.servers,
    ("docs/retrieval.md", "request"): tables.request,
    ("docs/retrieval.md", "vectors"): tables.vectors,
    ("docs/serving/capacity.md", "serving"): serving.table,
    ("docs/serving/capacity.md", "serving-batches"): serving.batches,
    ("docs/serving/promises.md", "serving-faults"): serving.faults,
}
"""Page and name of the marks to what makes the text between them."""


def write(root: Path) -> None:
    """Write every table into its page."""
    for page in sorted({page for page, _ in SECTIONS}):
        path = root / page
        text, renewed = path.read_text(encoding="utf-8"), _renewed(root, page)
        if renewed != text:
            write_text(path, renewed)


def stale(root: Path) -> Iterator[str]:
    """A line for every page whose tables are not those of the records, byte for byte."""
    for page in sorted({page for page, _ in SECTIONS}):
        if _renewed(root, page) != (root / page).read_text(encoding="utf-8"):
            yield f"{page}: its tables are not those of the records; run python -m recsys.benchmarks.pages"


def _renewed(root: Path, page: str) -> str:
    text = (root / page).read_text(encoding="utf-8")
    for (where, name), make in SECTIONS.items():
        if where == page:
            begin, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            if not found or not closed:
                raise DataError(f"{page}: lacks the marks {begin} and {end}, between which the table goes")
            text = f"{before}{section(name, make())}{after}"
    return text
