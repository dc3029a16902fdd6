"""A user's 24 hours: the same weights as the definition's, and pictures that refuse what they cannot draw."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recsys import Recommender, prepare
from recsys.answering.user_clock import read_user_clock
from recsys.answering.user_clock_plot import plot_user_clock
from recsys.datasets.synthetic.logs import clock_log
from recsys.datasets.times.local_times import local_times
from recsys.errors import ArgumentError, UnknownIdError
from recsys.evaluation.hour_plot import plot_by_hour
from recsys.kernels.clock.circle import DAY, evaluate_kernel


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    frame = clock_log(20, 12, mean_length=15, utc_offset_hours=-5).frame
    store = prepare(frame, Path(tmp_path_factory.mktemp("user-clock")) / "data", time_zone="-05:00")
    options: dict[str, object] = {"d_model": 16, "n_layers": 1, "max_length": 10}
    return Recommender(clock=True, encoder_options=options, training_options={"epochs": 1}).fit(store)


def test_shares_are_the_clocks_weights(model: Recommender) -> None:
    store, clock = model.store_, model.encoder_.clock
    assert clock is not None
    found = read_user_clock(model.encoder_, store, 3, most=12)
    end = int(store.offsets[4])
    start = max(int(store.offsets[3]), end - 10)
    local = local_times(store, slice(start, end))
    assert local is not None
    items = np.asarray(store.items[start:end])
    assert (found.kind, found.events) == ("item", end - start)
    assert len(found.labels) == len(set(items.tolist()))
    after = int(local[-1]) // 3600 * 3600 + 3600
    with torch.no_grad():
        for at in range(after, after + DAY, 3600):
            gap = at - torch.from_numpy(local)
            decay = torch.exp(-clock.rate.double() * gap.double() / DAY)
            weights = (evaluate_kernel(gap, clock.coefficients.double()) * decay).numpy()
            prior = float(clock.log_prior.exp())
            expected = np.bincount(items, weights) / (weights.sum() + prior)
            hour = at // 3600 % 24
            np.testing.assert_allclose(
                np.sort(found.shares[hour]), np.sort(expected[np.unique(items)]), atol=1e-5
            )
            assert found.prior[hour] == pytest.approx(prior / (weights.sum() + prior), abs=1e-5)


def test_what_is_left_of_the_labels_is_other(model: Recommender) -> None:
    all_of_them = read_user_clock(model.encoder_, model.store_, 3, most=12)
    few = read_user_clock(model.encoder_, model.store_, 3, most=2)
    assert few.labels == [*all_of_them.labels[:2], "other"]
    np.testing.assert_allclose(few.shares.sum(1), all_of_them.shares.sum(1), atol=1e-5)
    with pytest.raises(UnknownIdError):
        read_user_clock(model.encoder_, model.store_, 99)
    with pytest.raises(ArgumentError, match="most = 0"):
        read_user_clock(model.encoder_, model.store_, 3, most=0)


def test_pictures_refuse_what_they_cannot_draw(model: Recommender, tmp_path: Path) -> None:
    clock = read_user_clock(model.encoder_, model.store_, 3, most=2)
    with pytest.raises(ArgumentError, match="choose .png"):
        plot_user_clock(clock, tmp_path / "clock.bmp")
    assert plot_user_clock(clock, tmp_path / "clock.svg").read_text().startswith("<?xml")
    values = [0.5] * 23 + [None]
    assert plot_by_hour({"a": {"x": values}}, [1] * 24, tmp_path / "hours.svg", title="t").exists()
    with pytest.raises(ArgumentError, match="24 values"):
        plot_by_hour({"a": {"x": values[1:]}}, [1] * 24, tmp_path / "hours.svg", title="t")
    with pytest.raises(ArgumentError, match="panels"):
        plot_by_hour({}, [1] * 24, tmp_path / "hours.svg", title="t")
    with pytest.raises(ArgumentError, match="choose .png"):
        plot_by_hour({"a": {"x": values}}, [1] * 24, tmp_path / "hours.bmp", title="t")
