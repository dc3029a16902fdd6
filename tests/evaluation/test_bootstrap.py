import numpy as np
import pytest

from recsys.errors import ArgumentError
from recsys.evaluation.bootstrap import confidence_intervals, paired_difference, resampled_means


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    hits = np.repeat([1.0, 0.0], [300, 700])
    low, high = confidence_intervals({"hr@10": hits}, generator(), resamples=20_000)["hr@10"]
    width = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - width, abs=0.003)
    assert high == pytest.approx(0.3 + width, abs=0.003)


def test_resampled_means_have_the_mean_and_spread_of_drawing_users_one_by_one() -> None:
    values = generator(1).random((200, 2))
    means = resampled_means(values, generator(2), 20_000)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=0.001)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / np.sqrt(200), rtol=0.03)


def test_metrics_of_a_user_are_drawn_together() -> None:
    values = generator(1).random(100)
    means = resampled_means(np.stack([values, 1 - values], axis=1), generator(), 50)
    np.testing.assert_allclose(means.sum(axis=1), 1)


def test_chunks_of_resamples_give_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = generator(1).random((30, 1))
    monkeypatch.setattr("recsys.evaluation.bootstrap._COUNTS_AT_ONCE", 70)
    means = resampled_means(values, generator(), 11)
    assert means.shape == (11, 1)
    assert np.all((means > values.min()) & (means < values.max()))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = {"m": generator(1).random(50)}
    first = confidence_intervals(values, generator(3))
    assert first == confidence_intervals(values, generator(3))
    assert first != confidence_intervals(values, generator(4))


def test_a_constant_metric_has_an_interval_without_width() -> None:
    assert confidence_intervals({"m": np.full(10, 0.25)}, generator())["m"] == pytest.approx((0.25, 0.25))


def test_the_true_mean_is_covered_about_as_often_as_promised() -> None:
    covered = 0
    for seed in range(300):
        hits = (generator(seed).random(200) < 0.3).astype(float)
        low, high = confidence_intervals({"m": hits}, generator(seed + 1000), resamples=400)["m"]
        covered += low <= 0.3 <= high
    assert 0.90 <= covered / 300 <= 0.985


def test_a_model_does_not_differ_from_itself() -> None:
    values = generator(1).random(80)
    outcome = paired_difference(values, values, generator())
    assert outcome.difference == 0
    assert outcome.p_value == 1


def test_a_small_difference_that_all_users_share_is_found_by_pairing() -> None:
    values = generator(1).random(80)
    outcome = paired_difference(values + 0.01 + 0.001 * generator(2).random(80), values, generator())
    assert outcome.p_value == pytest.approx(1 / 1001)
    assert 0.010 < outcome.low < outcome.difference < outcome.high < 0.011


def test_the_paired_test_errs_about_as_often_as_its_level_says() -> None:
    rejected = 0
    for seed in range(300):
        a, b = generator(seed).normal(size=(2, 60))
        rejected += paired_difference(a, b, generator(seed + 1000), resamples=300).p_value < 0.05
    assert 0.02 <= rejected / 300 <= 0.10


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_outside_zero_to_one_is_refused(level: float) -> None:
    with pytest.raises(ArgumentError, match="level="):
        confidence_intervals({"m": np.ones(3)}, generator(), level=level)
    with pytest.raises(ArgumentError, match="level="):
        paired_difference(np.ones(3), np.ones(3), generator(), level=level)


def test_unequal_and_empty_vectors_are_refused() -> None:
    with pytest.raises(ArgumentError, match="same users"):
        paired_difference(np.ones(3), np.ones(4), generator())
    with pytest.raises(ArgumentError, match="at least one user"):
        confidence_intervals({"m": np.ones(0)}, generator())
    with pytest.raises(ArgumentError, match="resamples=0"):
        confidence_intervals({"m": np.ones(2)}, generator(), resamples=0)
