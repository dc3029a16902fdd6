"""The interest clock in the engine: which times reach it, what it may not see, and what it is worth."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys import Recommender, SequenceStore, prepare
from recsys.answering.user_states import UserStates
from recsys.datasets.synthetic.logs import clock_log
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError, ConfigError
from recsys.jagged import SequenceBatch
from recsys.training.objectives import make_task, next_item

DAY = 86_400
V = 40
NAMES = ("sasrec", "bert4rec", "mamba")
SMALL: dict[str, object] = {"d_model": 16, "n_layers": 1, "max_length": 32, "dropout": 0.0}


def _encoder(name: str, **options: object) -> SequenceEncoder:
    encoder = build_encoder(name, V, encoder_config(name, {**SMALL, "clock": "pool", **options})).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim >= 2 and parameter.shape[-1] > 4:
                parameter.mul_(5)
    return encoder


def _histories(n: int, seed: int = 0) -> tuple[list[Any], list[Any]]:
    rng = np.random.default_rng(seed)
    items = [rng.integers(0, V, rng.integers(1, 12)) for _ in range(n)]
    local = [np.cumsum(rng.integers(1, 3 * DAY, len(i))) + 1_700_000_000 for i in items]
    return items, local


def _batch(items: list[Any], local: list[Any]) -> SequenceBatch:
    return SequenceBatch.from_sequences(items, [t - 3600 for t in local], local)


def test_a_state_is_asked_for_at_the_time_of_what_it_predicts() -> None:
    batch = SequenceBatch.from_sequences([[1, 2, 3], [4, 5]], None, [[10, 20, 30], [40, 50]])
    inputs = next_item(batch).batch
    assert inputs.local_times is not None
    assert inputs.query_times is not None
    assert inputs.local_times.tolist() == [10, 20, 40]
    assert inputs.query_times.tolist() == [20, 30, 50]
    moved = inputs.to("cpu")
    assert moved.query_times is not None
    assert moved.query_times.tolist() == [20, 30, 50]


def test_appended_events_and_requests_have_their_own_times() -> None:
    batch = SequenceBatch.from_sequences([[1, 2], [], [3]], None, [[10, 20], [], [30]])
    for told, local, asked in (
        (None, [10, 20, 20, 0, 30, 30], [10, 20, 20, 0, 30, 30]),
        (torch.tensor([5, 6, 70]), [10, 20, 20, 6, 30, 70], [10, 20, 5, 6, 30, 70]),
    ):
        longer = batch.append(99, local_times=told)
        assert longer.local_times is not None
        assert longer.query_times is not None
        assert longer.local_times.tolist() == local
        assert longer.query_times.tolist() == asked
    requested = batch.asked_at(torch.tensor([7, 8, 9])).query_times
    assert requested is not None
    assert requested.tolist() == [10, 7, 9]
    with pytest.raises(ArgumentError, match="without local times"):
        SequenceBatch.from_sequences([[1]]).asked_at(torch.tensor([7]))


def _trained_states(encoder: SequenceEncoder, items: list[Any], local: list[Any]) -> torch.Tensor:
    """States of a training batch, at the rows that are supervised."""
    task = make_task(encoder, _batch(items, local), np.random.default_rng(0))
    with torch.no_grad():
        hidden: torch.Tensor = encoder(task.batch)
    return hidden if task.rows is None else hidden[task.rows]


@pytest.mark.parametrize("clock", ["pool", "hours"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_target_but_its_time_is_seen_in_training(name: str, clock: str) -> None:
    encoder = _encoder(name, clock=clock, **({"last_mask_probability": 1.0} if name == "bert4rec" else {}))
    items, local = _histories(6)
    items, local = [np.append(i, 3) for i in items], [np.append(t, t[-1] + DAY) for t in local]
    before = _trained_states(encoder, items, local)
    other = [np.append(i[:-1], 17) for i in items]
    assert torch.equal(before, _trained_states(encoder, other, local))
    later = [np.append(t[:-1], t[-1] + 6 * 3600) for t in local]
    changed = (before != _trained_states(encoder, items, later)).any(dim=1)
    targets = (
        changed if not encoder.causal else changed[torch.tensor([len(i) - 1 for i in items]).cumsum(0) - 1]
    )
    assert targets.all()
    if encoder.causal:  # no other state knows when the last event was
        assert int(changed.sum()) == len(items)


@pytest.mark.parametrize("name", ["sasrec", "mamba"])
def test_a_state_does_not_know_what_comes_after_its_target(name: str) -> None:
    encoder = _encoder(name)
    rng = np.random.default_rng(1)
    items, local = rng.integers(0, V, 20), np.cumsum(rng.integers(1, DAY, 20)) + 1_700_000_000
    whole = _trained_states(encoder, [items], [local])
    for length in (2, 7, 19):
        part = _trained_states(encoder, [items[:length]], [local[:length]])
        torch.testing.assert_close(whole[: length - 1], part, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("clock", ["pool", "hours"])
@pytest.mark.parametrize("name", NAMES)
def test_another_hour_is_another_state(name: str, clock: str) -> None:
    encoder = _encoder(name, clock=clock)
    items, local = _histories(5)
    batch = _batch(items, local)
    last = torch.tensor([int(t[-1]) for t in local])
    with torch.no_grad():
        own, same, later = (encoder.user_state(batch, local_at=at) for at in (None, last, last + 6 * 3600))
    torch.testing.assert_close(own, same)
    assert (own != later).any(dim=1).all()


def _count_encodings(encoder: SequenceEncoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every pass through the encoder from now on."""
    passes: list[str] = []
    for method in ("encode", "encode_step", "encode_prefill"):
        own = getattr(encoder, method)

        def noted(*args: Any, own: Any = own, method: str = method, **options: Any) -> Any:
            passes.append(method)
            return own(*args, **options)

        monkeypatch.setattr(encoder, method, noted)
    return passes


@pytest.mark.parametrize("name", NAMES)
def test_one_encoding_answers_a_thousand_requests_at_all_hours(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = _encoder(name)
    items, local = _histories(1)
    batch = _batch(items, local)
    hours = int(local[0][-1]) + 3600 * np.random.default_rng(3).permutation(np.arange(1000) % 24)
    passes = _count_encodings(encoder, monkeypatch)
    with torch.no_grad():
        memory = encoder.remember(batch)
        assert len(passes) == 1
        read = torch.cat([encoder.recall(memory, torch.tensor([at])) for at in hours])
        assert len(passes) == 1
        anew = {int(at): encoder.user_state(batch, local_at=torch.tensor([int(at)])) for at in set(hours)}
        assert len(passes) == 1 + 24
        torch.testing.assert_close(encoder.recall(memory), encoder.user_state(batch), rtol=1e-5, atol=1e-5)
    expected = torch.cat([anew[int(at)] for at in hours])
    torch.testing.assert_close(read, expected, rtol=1e-5, atol=1e-5)
    assert len(expected.unique(dim=0)) == 24


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_can_be_asked_at_any_hour(name: str) -> None:
    encoder = _encoder(name)
    rng = np.random.default_rng(2)
    items, local = rng.integers(0, V, (3, 10)), np.cumsum(rng.integers(1, DAY, (3, 10)), axis=1)
    at = torch.from_numpy(local[:, -1] + 5 * 3600)
    state = encoder.initial_state(3)
    with torch.no_grad():
        for t in range(10):
            hidden, state = encoder.step(
                state,
                torch.from_numpy(items[:, t]),
                local_times=torch.from_numpy(local[:, t]),
                local_at=at if t == 9 else None,
            )
        expected = encoder.user_state(_batch(list(items), list(local)), local_at=at)
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)


def test_hidden_items_are_not_pooled() -> None:
    encoder = _encoder("bert4rec")
    clock = encoder.clock
    assert clock is not None
    batch = SequenceBatch.from_sequences([[1, V, 2]], None, [[0, 100, 200]])
    vectors = encoder.item_embedding(batch.items)
    louder = torch.where(batch.items[:, None] == V, vectors + 100.0, vectors)
    hidden = torch.zeros(3, 16)
    with torch.no_grad():
        assert torch.equal(clock(hidden, batch, vectors), clock(hidden, batch, louder))


def test_options_of_the_clock_change_what_it_does() -> None:
    items, local = _histories(5)
    batch = _batch(items, local)
    found = []
    for options in (
        {},
        {"clock_half_life": 1.0},
        {"clock_half_life": 0},
        {"clock": "hours"},
        {"clock": "off"},
    ):
        with torch.no_grad():
            found.append(_encoder("sasrec", **options).user_state(batch))
    for first in range(len(found)):
        for second in range(first):
            assert not torch.allclose(found[first], found[second])
    with pytest.raises(ConfigError, match="encoder.clock_half_life"):
        encoder_config("sasrec", {"clock_half_life": -1})
    with pytest.raises(ConfigError, match="encoder.clock"):
        encoder_config("sasrec", {"clock": "cuckoo"})


@pytest.mark.parametrize("clock", ["pool", "hours"])
def test_events_without_local_times_are_refused(clock: str) -> None:
    encoder = _encoder("sasrec", clock=clock)
    with pytest.raises(ArgumentError, match="time_zone="):
        encoder(SequenceBatch.from_sequences([[1, 2]], [[1, 2]]))
    with pytest.raises(ArgumentError, match="time_zone="):
        encoder.step(encoder.initial_state(1), torch.tensor([1]), torch.tensor([1]))
    if clock == "hours":
        with pytest.raises(ArgumentError, match="not 'pool'"):
            encoder.remember(_batch([[1]], [np.array([5])]))


TRAINING = {"epochs": 1, "batch_events": 512}


def _frame(step_s: int = 5_000, start: int = 1_700_000_000) -> pl.DataFrame:
    rows = [(u, (u + t) % 8, start + (u + 7 * t) * step_s) for u in range(20) for t in range(6)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.mark.parametrize(
    ("frame", "options", "reason"),
    [
        (_frame(), {}, "time zone is not known.*time_zone="),
        (_frame().drop("timestamp"), {"time_unit": "order"}, "order alone"),
        (_frame(DAY), {"time_zone": "America/New_York"}, "days without hours"),
        (_frame(DAY, 1_699_920_000 + 5 * 3600), {"time_zone": "-05:00"}, "days without hours"),
    ],
)
def test_a_log_without_hours_is_refused_in_one_line(
    frame: pl.DataFrame, options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    store = prepare(frame, tmp_path / "data", **options)
    model = Recommender(clock=True, encoder_options=SMALL, training_options=TRAINING)
    with pytest.raises(ConfigError, match=reason) as error:
        model.fit(store)
    assert "\n" not in str(error.value)
    assert "clock=True" in str(error.value)


def test_nearly_all_events_at_midnight_are_days(tmp_path: Path) -> None:
    frame = _frame(DAY, 1_699_920_000)
    frame[0, "timestamp"] = 1_699_920_001
    store = prepare(frame, tmp_path / "data", time_zone="UTC")
    assert store.meta["time"]["granularity"] == "second"
    assert 0.95 < store.meta["time"]["midnight_share"] < 1
    with pytest.raises(ConfigError, match="99% of events at midnight"):
        Recommender(clock=True, encoder_options=SMALL, training_options=TRAINING).fit(store)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    frame = clock_log(60, 20, mean_length=12, utc_offset_hours=-5).frame
    store = prepare(frame, Path(tmp_path_factory.mktemp("clock")) / "data", time_zone="-05:00")
    return Recommender(
        clock=True, encoder_options=SMALL, training_options={**TRAINING, "epochs": 3, "learning_rate": 0.01}
    ).fit(store)


def test_the_moment_of_a_request_changes_its_answer(model: Recommender) -> None:
    def scores(**options: Any) -> Any:
        return model.recommend_arrays(k=20, exclude_seen=False, **options)[1]

    store = model.store_
    assert store.timestamps is not None
    last = np.asarray(store.timestamps)[np.asarray(store.offsets[1:]) - 1]
    assert np.array_equal(scores(), scores(at=last.tolist()))
    eight = scores(at="2030-01-01T08:00")
    assert np.array_equal(eight, scores(at="2030-01-01T13:00+00:00"))
    assert np.array_equal(eight, scores(at=1_893_502_800))
    assert not np.allclose(eight, scores(at="2030-01-01T20:00"))
    assert np.array_equal(scores(at="2030-01-01T20:00"), scores(at="2030-01-02T01:00Z"))
    assert not np.allclose(eight, scores(at=1_893_502_800, time_zone="Asia/Tokyo"))


def test_a_history_of_anyone_needs_times(model: Recommender) -> None:
    first = model.recommend(histories=[[1, 2]], times=[[1_800_000_000, 1_800_100_000]], k=5)
    later = model.recommend(
        histories=[[1, 2]], times=[[1_800_000_000, 1_800_100_000]], k=5, at=1_800_100_000 + 43_200
    )
    assert first["score"].to_list() != later["score"].to_list()
    with pytest.raises(ArgumentError, match="pass times="):
        model.recommend(histories=[[1, 2]])
    with pytest.raises(ArgumentError, match="is no moment"):
        model.recommend([0], at="teatime")
    with pytest.raises(ArgumentError, match="2 moments for 1 requests"):
        model.recommend([0], at=[1, 2])
    with pytest.raises(ArgumentError, match="time_zone="):
        model.recommend([0], time_zone="Mars/Olympus")


def test_a_model_without_a_clock_refuses_a_moment(tmp_path: Path) -> None:
    model = Recommender(encoder_options=SMALL, training_options=TRAINING).fit(
        prepare(_frame(), tmp_path / "data")
    )
    with pytest.raises(ArgumentError, match="no part in this model's answers"):
        model.recommend([0], at=1_893_500_000)


LEARNED: dict[str, tuple[dict[str, object], int, float]] = {
    "sasrec": ({}, 6, 1e-2),
    "bert4rec": ({"mask_probability": 0.3}, 10, 1e-2),
    "mamba": ({}, 6, 1e-2),
}


@pytest.fixture(scope="module")
def habits(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, SequenceStore]:
    log = clock_log(1200, 60, groups=2, mean_length=30, utc_offset_hours=-5, seed=0)
    folder = Path(tmp_path_factory.mktemp("habits")) / "data"
    return log.best["hr@10"], prepare(log.frame, folder, time_zone="-05:00")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_clock_finds_habits_and_nothing_else_does(name: str, habits: tuple[float, SequenceStore]) -> None:
    best, store = habits
    own, epochs, rate = LEARNED[name]
    reached = {}
    for clock in (True, False):
        model = Recommender(
            name,
            clock=clock,
            encoder_options={
                "d_model": 32,
                "n_layers": 1,
                "d_ff": 64,
                "dropout": 0.1,
                "max_length": 40,
                "repeat_by": "last",
                **({} if clock else {"clock": "off"}),
                **own,
            },
            training_options={
                "epochs": epochs,
                "batch_events": 1024,
                "learning_rate": rate,
                "label_smoothing": 0.0,
                "ema_decay": 0.98,
                "evaluate_every": epochs // 2,
            },
        ).fit(store)
        reached[clock] = model.evaluate().metrics_seen_kept["hr@10"]
    assert reached[True] >= 0.95 * best
    assert reached[False] <= 0.6 * best


def test_a_cache_of_states_reads_local_hours() -> None:
    encoder = _encoder("mamba")
    items, times = np.array([1, 2, 3]), 1_700_000_000 + np.array([0, 5_000, 90_000])
    zones = {
        zone: UserStates(encoder, lambda _: (items[:2], times[:2]), time_zone=zone)
        for zone in ("+05:30", "UTC")
    }
    found = {zone: states.append("a", 3, int(times[2])) for zone, states in zones.items()}
    batch = SequenceBatch.from_sequences([items], [times], [times + 19_800])
    with torch.no_grad():
        expected = encoder.user_state(batch)[0].numpy()
    np.testing.assert_allclose(found["+05:30"], expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found["UTC"], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_cached_state_is_read_at_any_hour_without_encoding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = _encoder(name)
    items, times = np.array([1, 2, 3]), 1_700_000_000 + np.array([0, 5_000, 90_000])
    states = UserStates(encoder, lambda _: (items, times), time_zone="America/New_York")
    passes = _count_encodings(encoder, monkeypatch)
    last = int(times[-1])
    own = states.state("a")
    assert own is not None
    once = len(passes)
    assert once > 0
    found: list[Any] = [states.state("a", at=last + hour * 3600) for hour in range(24)]
    assert len(passes) == once
    assert (states.hits, states.misses) == (24, 1)
    np.testing.assert_allclose(found[0], own, rtol=1e-6, atol=1e-6)
    batch = SequenceBatch.from_sequences([items], [times], [times - 5 * 3600])
    for hour in (0, 7, 15):
        with torch.no_grad():
            expected = encoder.user_state(batch, local_at=torch.tensor([last + (hour - 5) * 3600]))
        np.testing.assert_allclose(found[hour], expected[0].numpy(), rtol=1e-5, atol=1e-5)
    after = states.append("a", 5, last + 60, at=last + 6 * 3600)
    again: Any = states.state("a", at=last + 6 * 3600)
    now: Any = states.state("a")
    np.testing.assert_allclose(again, after, rtol=1e-6)
    assert not np.allclose(now, after)


def test_a_cache_refuses_an_hour_that_nothing_reads() -> None:
    items, times = np.array([1, 2, 3]), 1_700_000_000 + np.array([0, 5_000, 90_000])
    for clock in ("hours", "off"):
        encoder = _encoder("sasrec", clock=clock)
        states = UserStates(encoder, lambda _: (items, times), time_zone="UTC")
        with pytest.raises(ArgumentError, match="no clock to read"):
            states.state("a", at=1_700_000_000)
    states = UserStates(_encoder("sasrec"), lambda _: (items, times))
    with pytest.raises(ArgumentError, match="time_zone"):
        states.state("a", at=1_700_000_000)
