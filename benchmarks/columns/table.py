"""The studies' table."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["columns_table"]


def columns_table(record: Mapping[str, Any]) -> str:
    """A line for each side: figures by the study's own seen rule, and its paired test against the first.

    Popularity stands below them, counted over the training events.
    """
    lines = [
        "| log | read or weighed | HR@10 / NDCG@10 (each seed's) | NDCG@10 against the first line, 95% | p |",
        "|---|---|---|---|---|",
    ]
    for name, study in record["studies"].items():
        lines += _lines(name, study)
    return "\n".join(lines) + "\n"


def _lines(name: str, study: Mapping[str, Any]) -> Iterator[str]:
    seen = study["seen"]
    first = study["sides"][0]["name"]
    for side in study["sides"]:
        each = ", ".join(f"{seed['ndcg@10']:.4f}" for seed in side[seen]["seeds"])
        figures = f"{side[seen]['hr@10']:.4f} / {side[seen]['ndcg@10']:.4f} ({each})"
        apart, p = "", ""
        for pair in study["pairs"]:
            if (pair["a"], pair["b"], pair["seen"]) == (side["name"], first, seen):
                test = pair["ndcg@10"]
                apart = f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f})"
                p = f"{test['p_value']:.4f}"
        yield f"| {name} | {side['name']} | {figures} | {apart} | {p} |"
    popular = study["popularity"][seen]
    yield f"| {name} | popularity | {popular['hr@10']:.4f} / {popular['ndcg@10']:.4f} | | |"
