"""The bias by all occurrences: the loss, what it learns, and that everything which ranks knows it."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys import Recommender
from recsys.answering.each import Answer, Request
from recsys.answering.search import search_users
from recsys.answering.user_states import UserStates
from recsys.datasets.times.local_times import local_times
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.inference import encode_histories
from recsys.encoders.occurrence_bias import OccurrenceBias
from recsys.errors import ArgumentError, ConfigError
from recsys.jagged import SequenceBatch
from recsys.training.config import TrainingConfig
from recsys.training.losses import TrainingLoss
from recsys.training.objectives import make_task

ENCODERS = ("sasrec", "bert4rec", "mamba")
DAY, MONDAY = 86_400, 1_767_571_200
"""Midnight of Monday, 2026-01-05, UTC."""
SMALL = {"d_model": 16, "n_layers": 1, "max_length": 24, "dropout": 0.0}
ASKED = MONDAY + 60 * DAY + 8 * 3600


def _log(users: int = 30, days: int = 10) -> pl.DataFrame:
    """Users with a place of their own for the morning and one for the evening, who also wander."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        morning, evening = (int(x) for x in rng.choice(20, 2, replace=False))
        for day in range(days):
            for hour, own in ((8, morning), (20, evening)):
                item = own if rng.random() < 0.85 else int(rng.integers(0, 20))
                rows.append((user, item, MONDAY + day * DAY + hour * 3600 + int(rng.integers(0, 1200))))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module", params=ENCODERS)
def trained(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    store = recsys.prepare(_log(), tmp_path_factory.mktemp("log") / "data", time_zone="UTC")
    options = {**SMALL, "repeat_bias": 3, "repeat_by": "clock", "clock": "off"}
    training = {"epochs": 8, "batch_events": 128, "learning_rate": 0.01, "evaluate_every": 8}
    model = Recommender(request.param, encoder_options=options, training_options=training, index="exact")
    return model.fit(store)


def _scores(model: Recommender, user: int, asked: int) -> Any:
    """(V,) scores of a user of the log by the definition: inner products, and votes of the occurrences."""
    store, encoder = model.store_, model.encoder_
    biases = encoder.repeat_bias
    assert isinstance(biases, OccurrenceBias)
    span = np.array([store.offsets[user]]), np.array([store.offsets[user + 1]])
    local = local_times(store)
    assert local is not None
    state = encode_histories(
        encoder, store.items, store.timestamps, *span, local_times=local, at=np.array([asked]),
        local_at=np.array([asked]),
    )  # fmt: skip
    scores = (encoder.item_vectors() @ state[0]).double().numpy()
    by_distance, hours, ages, days = biases.bias.detach().double().split((3, 24, 16, 3))
    votes: dict[int, float] = {}
    for place in range(max(span[0][0], span[1][0] - encoder.history_length), span[1][0]):
        then = int(local[place])
        apart = abs(asked // 900 % 96 - then // 900 % 96)
        age = int(np.log2(max(abs(asked // 900 - then // 900), 1)))
        weekdays = [(x // DAY + 3) % 7 for x in (asked, then)]
        kind = 0 if weekdays[0] == weekdays[1] else 1 if (weekdays[0] > 4) == (weekdays[1] > 4) else 2
        weight = (
            by_distance[min(int(np.log2(span[1][0] - place)), 2)]
            + hours[min(min(apart, 96 - apart) // 2, 23)]
            + ages[min(age, 15)]
            + days[kind]
        )
        item = int(store.items[place])
        votes[item] = votes.get(item, 0.0) + float(weight.exp())
    for item, sum_ in votes.items():
        scores[item] += np.log(sum_)
    return scores


def test_it_learns_that_mornings_are_alike(trained: Recommender) -> None:
    biases = trained.encoder_.repeat_bias
    assert isinstance(biases, OccurrenceBias)
    hours = biases.bias.detach()[3:27]
    assert hours[0] > hours[-1] + 0.3


def test_answers_at_an_hour_are_the_best_of_the_biased_scores(trained: Recommender) -> None:
    raw = trained._names.items
    orders = []
    for hour in (8, 20):
        asked = ASKED + (hour - 8) * 3600
        answer = trained.recommend(users=[4, 9], k=6, exclude_seen=False, at=asked)
        for user in (4, 9):
            scores = _scores(trained, user, asked)
            best = np.argsort(-scores, kind="stable")[:6]
            own = answer.filter(pl.col("user_id") == user)
            assert own["item_id"].to_list() == raw.decode(best).to_list()
            np.testing.assert_allclose(own["score"].to_numpy(), scores[best], rtol=1e-4, atol=1e-4)
        orders.append(answer["item_id"].to_list())
    assert orders[0] != orders[1]


def test_requests_and_live_users_answer_as_the_model_does(trained: Recommender) -> None:
    live = trained.live_users()
    for at in (None, ASKED, ASKED + 12 * 3600):
        wanted = trained.recommend(users=[4, 9], k=6, exclude_seen=False, at=at)
        assert live.recommend([4, 9], k=6, exclude_seen=False, at=at).equals(wanted)
        requests = [Request(user=user, k=6, exclude_seen=False, at=at) for user in (4, 9)]
        for user, own in zip((4, 9), trained.answerer().answer(requests), strict=True):
            assert isinstance(own, Answer)
            same = wanted.filter(pl.col("user_id") == user)
            assert own.ids == same["item_id"].to_list()
            np.testing.assert_allclose(own.scores, same["score"].to_numpy(), rtol=1e-5, atol=1e-5)
    items, times = _history(trained, 4)
    live.append(4, 7, ASKED - 3600)
    asked: dict[str, Any] = {"k": 6, "exclude_seen": False, "at": ASKED}
    raw = [*trained._names.items.decode(items).to_list(), 7]
    wanted = trained.recommend(
        histories=[raw], times=[[*times.tolist(), ASKED - 3600]], time_zone="UTC", **asked
    )
    found = live.recommend([4], **asked)
    assert found["item_id"].to_list() == wanted["item_id"].to_list()
    np.testing.assert_allclose(found["score"].to_numpy(), wanted["score"].to_numpy(), rtol=1e-4, atol=1e-4)


def _history(model: Recommender, user: int) -> tuple[Any, Any]:
    """Items and times of a user of the log."""
    store = model.store_
    assert store.timestamps is not None
    span = slice(int(store.offsets[user]), int(store.offsets[user + 1]))
    return np.asarray(store.items[span]), np.asarray(store.timestamps[span])


def test_kept_states_know_the_window_and_its_times(trained: Recommender) -> None:
    encoder, store = trained.encoder_, trained.store_

    def history(user: Any) -> Any:
        items, times = _history(trained, user)
        return items[:10], times[:10]

    kept = UserStates(encoder, history, time_zone="UTC")
    extra = [(int(store.items[0]), ASKED - 7200), (5, ASKED - 3600)]
    for item, when in extra:
        kept.append(4, item, when)
    query = kept.query(4, at=ASKED)
    assert query is not None
    assert query.asked is not None
    assert query.asked.tolist() == [ASKED]
    found = search_users(encoder, trained.decoder_, query, 5, exclude_seen=False)
    items, times = history(4)
    items = trained._names.items.decode([*items, *(item for item, _ in extra)]).to_list()
    times = [*times.tolist(), *(when for _, when in extra)]
    wanted = trained.recommend(
        histories=[items], times=[times], time_zone="UTC", k=5, exclude_seen=False, at=ASKED
    )
    assert trained._names.items.decode(found.ids[0]).to_list() == wanted["item_id"].to_list()
    np.testing.assert_allclose(found.scores[0], wanted["score"].to_numpy(), rtol=1e-4, atol=1e-4)
    bare = type(query)(query.states, query.groups, query.items, query.offsets)
    with pytest.raises(ArgumentError, match="give it the events' local times"):
        search_users(encoder, trained.decoder_, bare, 5, exclude_seen=False)


def test_evaluation_ranks_by_the_biased_scores(trained: Recommender, tmp_path: Any) -> None:
    result = trained.evaluate()
    assert set(result.slices["target"]) == {"new", "repeated"}
    store, model = trained.store_, trained.encoder_.eval()
    ends = np.asarray(store.test_start, dtype=np.int64)
    assert store.timestamps is not None
    local = local_times(store)
    assert local is not None
    biases = model.repeat_bias
    assert biases is not None
    starts = np.asarray(store.offsets[:-1], dtype=np.int64)
    states = encode_histories(
        model, store.items, store.timestamps, starts, ends, local_times=local, at=store.timestamps[ends],
        local_at=local[ends],
    )  # fmt: skip
    scores = (states @ model.item_vectors().T).double().numpy()
    ids, offsets, added = biases.of_windows(
        store.items, starts, ends, model.history_length, local, local[ends]
    )
    scores[np.repeat(np.arange(len(ends)), np.diff(offsets)), ids] += added
    own = scores[np.arange(len(ends)), store.items[ends]][:, None]
    assert result.ranks["kept"].tolist() == (scores >= own).sum(1).tolist()
    trained.save(tmp_path / "run")
    again = recsys.load(tmp_path / "run")
    assert again.evaluate().metrics == result.metrics


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("rule", ["count", "clock"])
def test_the_loss_is_that_of_the_biased_logits(name: str, rule: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    items, lengths = rng.integers(0, 9, 31), np.array([7, 1, 0, 20, 3])
    times = np.sort(rng.integers(0, 400 * DAY, 31))
    options = {**SMALL, "max_length": 20, "repeat_bias": 4, "repeat_by": rule}
    encoder = build_encoder(name, 9, encoder_config(name, options)).double()
    biases = encoder.repeat_bias
    assert isinstance(biases, OccurrenceBias)
    with torch.no_grad():
        biases.weight.normal_(0, 0.05)
        encoder.item_embedding.weight.mul_(20)
    batch = SequenceBatch.from_lengths(items, lengths, times, times if rule == "clock" else None)
    task = make_task(encoder, batch, rng)
    loss = TrainingLoss(encoder, None, TrainingConfig(label_smoothing=0.1))
    hidden = torch.randn(task.n_targets, 16, dtype=torch.float64)
    found = loss(hidden, task.targets, None, task.repeats, sees_later=not encoder.causal)
    logits = (hidden @ encoder.item_weight.T).detach().numpy()
    seen, offsets = task.batch.items.numpy(), task.batch.offsets.numpy()
    rows = np.arange(len(seen)) if task.rows is None else task.rows.numpy()
    for at, row in enumerate(rows):
        sequence = int(np.searchsorted(offsets, row, side="right")) - 1
        place = int(row - offsets[sequence]) + (task.rows is None)
        others = [
            (offsets[sequence] + p, abs(place - p))
            for p in range(int(offsets[sequence + 1] - offsets[sequence]))
            if seen[offsets[sequence] + p] < 9 and (p < place or not encoder.causal)
        ]
        for item in {int(seen[event]) for event, _ in others}:
            mine = [(event, distance) for event, distance in others if seen[event] == item]
            # As a window of the item alone, each occurrence at its distance.
            logs = []
            for event, distance in mine:
                held = np.full(distance, item)
                local = asked = None
                if rule == "clock":
                    assert task.batch.local_times is not None
                    assert task.batch.query_times is not None
                    local = np.full(distance, int(task.batch.local_times[event]))
                    asked = np.array([int(task.batch.query_times[row])])
                one = biases.of_windows(held[:1], np.array([0]), np.array([1]), 1, local, asked)[2]
                # The first event of the window stands `distance` before its end.
                weights = biases.bias.detach().numpy()
                shift = weights[min(int(np.log2(distance)), 3)] - weights[0]
                logs.append(float(one[0]) + shift)
            logits[at, item] += np.logaddexp.reduce(logs)
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(logits), task.targets, label_smoothing=0.1)
    assert float(found.detach()) == pytest.approx(float(wanted), rel=1e-5)


def test_what_cannot_be_is_refused(tmp_path: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"repeat_by = 'clock' .* 'last' unless encoder.repeat_bias is above 0"
    ):
        encoder_config("sasrec", {**SMALL, "repeat_by": "clock"})
    store = recsys.prepare(_log(8), tmp_path / "data")
    model = Recommender("sasrec", encoder_options={**SMALL, "repeat_bias": 3, "repeat_by": "clock"})
    with pytest.raises(ConfigError, match="time zone is not known.*, or set encoder.repeat_by = 'count'"):
        model.fit(store)
    counted = {**SMALL, "repeat_bias": 3, "repeat_by": "count"}
    model = Recommender("sasrec", encoder_options=counted, training_options={"epochs": 1}).fit(store)
    assert not model.encoder_.reads_request_time
    assert len(model.recommend(users=[1], k=3, exclude_seen=False)) == 3


@pytest.mark.parametrize(
    ("name", "options"), [("sasrec", {"clock": "hours"}), ("bert4rec", {"clock": "off", "time_bias": 4})]
)
def test_kept_states_are_of_no_other_hour_where_the_network_reads_it(
    name: str, options: dict[str, Any]
) -> None:
    options = {**SMALL, "repeat_bias": 3, "repeat_by": "clock", **options}
    encoder = build_encoder(name, 20, encoder_config(name, options)).eval()
    events = np.array([1, 2]), np.array([MONDAY, MONDAY + 3600])
    kept = UserStates(encoder, lambda _: events, time_zone="UTC")
    assert kept.query(0) is not None
    with pytest.raises(ArgumentError, match="no clock to read"):
        kept.query(0, at=ASKED)
