from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from recsys.training.plots import plot_training


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_run_validated_once_shows_a_mark_and_whole_ticks(tmp_path: Path, drawn: list[Figure]) -> None:
    record = {"epoch": 1, "loss": 7.0, "valid": {"hr@10": 0.1, "ndcg@10": 0.05}}
    plot_training([record], tmp_path, loss="gbce")
    left, right = drawn[0].axes
    assert [line.get_marker() for line in right.get_lines()[:2]] == ["o", "o"]
    for axes in (left, right):
        inside = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert inside == [1.0]
    assert left.get_ylabel() == "generalized binary cross-entropy"
    title = right.get_title(loc="left")
    assert "seen items kept" in title
    assert "weights of epoch 1: NDCG@10 0.0500" in title
    assert not list(right.texts)  # nothing lies on the curves


def test_the_kept_epoch_is_that_of_the_metric_that_selects(tmp_path: Path, drawn: list[Figure]) -> None:
    history = [
        {
            "epoch": n,
            "loss": 5.0 - n,
            "validation_loss": 5.5,
            "valid": {"hr@10": 0.2, "ndcg@10": a, "mrr@5": b},
        }
        for n, a, b in ((1, 0.3, 0.1), (2, 0.2, 0.4))
    ]
    plot_training([*history, {"epoch": 3, "loss": 1.0}], tmp_path, select="mrr@5")
    left, right = drawn[0].axes
    assert "weights of epoch 2: MRR@5 0.4000" in right.get_title(loc="left")
    assert [line.get_label() for line in left.get_lines()] == ["training", "validation"]
    assert [line.get_label() for line in right.get_lines()][:3] == ["HR@10", "NDCG@10", "MRR@5"]
