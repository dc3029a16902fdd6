"""Figures weighted by inverse propensities: by hand, and on a log whose exposure is known."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender, prepare
from recsys.datasets.synthetic.exposure import exposure_log
from recsys.errors import ArgumentError
from recsys.evaluation.evaluate import evaluate_scores
from recsys.evaluation.targets import EvaluationTargets
from recsys.evaluation.unbiased import unbiased_figures


def test_weights_are_those_of_the_targets_items(tmp_path: Path) -> None:
    # Training events: a 4, b 1, c 0; the last events of four users are a, b, b, c.
    rows = [(1, "aaxa"), (2, "abxb"), (3, "axxb"), (4, "axxc")]
    frame = pl.DataFrame(
        [(user, item, 10**9 + 10 * user + place) for user, own in rows for place, item in enumerate(own)],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    )
    store = prepare(frame, tmp_path / "data")
    assert store.item_counts().tolist() == [5, 1, 0, 2]

    def scores(rows: np.ndarray, targets: EvaluationTargets) -> np.ndarray:
        return np.tile([4.0, 3.0, 2.0, 1.0], (len(rows), 1))  # a first, then b, c, x

    result = evaluate_scores(scores, store, ks=(1,), progress=False)
    assert result["hr@1"] == 0.25
    found = unbiased_figures(result, store, 1.0, resamples=200)
    # Only a is hit; it weighs 1/5, b twice 1; c never trained and is left out.
    assert found.metrics["hr@1"] == pytest.approx(0.2 / 2.2)
    assert found.cold_targets == 1
    assert found.effective_users == pytest.approx(2.2**2 / 2.04)
    low, high = found.confidence["hr@1"]
    assert 0 <= low <= found.metrics["hr@1"] <= high <= 1
    assert unbiased_figures(result, store, 0.5, resamples=0).confidence == {}
    assert "weighted by training events^-1" in found.table(result)
    assert found.to_json()["metrics"] == found.metrics
    for power in (0, -1, 4.5, True, "1"):
        with pytest.raises(ArgumentError, match="unbiased=.* above 0 and at most 4"):
            unbiased_figures(result, store, power)  # type: ignore[arg-type]


def test_a_protocols_own_targets_are_weighed(tmp_path: Path) -> None:
    # The next event of each user is an item that was seen; the one target of "rectools" follows it.
    rows = [(1, "aacab"), (2, "bbabc"), (3, "cxcxa")]
    frame = pl.DataFrame(
        [(user, item, 10**9 + 10 * user + place) for user, own in rows for place, item in enumerate(own)],
        schema=["user_id", "item_id", "timestamp"],
        orient="row",
    )
    store = prepare(frame, tmp_path / "data", split="last-n", test_events=2, valid_events=0)
    assert store.item_counts().tolist() == [3, 2, 3, 1]

    def scores(rows: np.ndarray, targets: EvaluationTargets) -> np.ndarray:
        return np.tile([1.0, 4.0, 2.0, 3.0], (len(rows), 1))  # b first

    result = evaluate_scores(scores, store, ks=(1,), protocol="rectools", progress=False)
    assert result.rows == result.users == 3
    found = unbiased_figures(result, store, 1.0, protocol="rectools", resamples=0)
    # The targets are b, c and a, of 2, 3 and 3 training events; b alone is hit.
    assert found.metrics["hr@1"] == pytest.approx((1 / 2) / (1 / 2 + 1 / 3 + 1 / 3))


@pytest.mark.slow
def test_propensities_help_on_what_is_shown_alike_and_foretell_it(tmp_path: Path) -> None:
    log = exposure_log(seed=0)
    biased, uniform = (
        prepare(frame, tmp_path / name) for frame, name in ((log.frame, "biased"), (log.uniform, "uniform"))
    )
    small: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 32, "max_length": 20, "repeat_bias": 0}
    found = {}
    for power in (0.0, 1.0):
        training = {"epochs": 8, "batch_events": 2048, "learning_rate": 5e-3, "label_smoothing": 0.0}
        model = Recommender(
            "sasrec",
            encoder_options={**small, "dropout": 0.1},
            training_options={**training, "propensity_power": power, "patience": 8},
        ).fit(biased)
        alike = model.evaluate(uniform)
        foretold = model.evaluate(biased, unbiased=1.0).unbiased
        assert foretold is not None
        low, high = foretold.confidence["hr@10"]
        slack = alike.confidence["hr@10"][1] - alike["hr@10"]
        assert low - slack <= alike["hr@10"] <= high + slack
        found[power] = alike["hr@10"]
    assert found[1.0] > found[0.0] + 0.02
