from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.errors import ArgumentError
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.plots import plot_comparison
from recsys.evaluation.result import EvaluationResult


@pytest.fixture
def result(random_store: Any) -> EvaluationResult:
    store = random_store(7)
    weight = torch.randn(store.n_items, 3, generator=torch.Generator().manual_seed(0))
    return evaluate_hidden(lambda rows, _: torch.ones(len(rows), 3), weight, store)


def test_a_picture_is_written_in_the_format_of_its_ending(result: EvaluationResult, tmp_path: Path) -> None:
    png = plot_comparison({"a": result, "b": result.to_json()}, tmp_path / "new" / "bars.png")
    svg = plot_comparison({"a": result}, tmp_path / "bars.svg", metrics=["hr@1"])
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["bars.png"]


def test_a_picture_can_be_drawn_without_intervals(result: EvaluationResult, tmp_path: Path) -> None:
    report = result.to_json() | {"confidence": {}}
    assert plot_comparison({"a": report}, tmp_path / "bars.png").stat().st_size > 1000


@pytest.mark.parametrize(("key", "value"), [("dataset", "other"), ("users", 3), ("split", "valid")])
def test_results_that_are_not_comparable_are_refused(
    result: EvaluationResult, tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(ArgumentError, match=f"not comparable: {key}"):
        plot_comparison({"a": result, "b": result.to_json() | {key: value}}, tmp_path / "bars.png")


def test_results_of_two_protocols_are_refused(result: EvaluationResult, tmp_path: Path) -> None:
    other = result.to_json()
    other["protocol"] = other["protocol"] | {"ties": "optimistic (before every equal score)"}
    with pytest.raises(ArgumentError, match="not comparable: ties"):
        plot_comparison({"a": result, "b": other}, tmp_path / "bars.png")


def test_nothing_to_draw_and_unknown_endings_are_refused(result: EvaluationResult, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="0 models"):
        plot_comparison({}, tmp_path / "bars.png")
    with pytest.raises(ArgumentError, match="has no hr@7"):
        plot_comparison({"a": result}, tmp_path / "bars.png", metrics=["hr@7"])
    with pytest.raises(ArgumentError, match=r"choose \.png"):
        plot_comparison({"a": result}, tmp_path / "bars.bmp")
    with pytest.raises(ArgumentError, match="metrics is empty"):
        plot_comparison({"a": result}, tmp_path / "bars.png", metrics=[])
