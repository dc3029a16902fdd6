"""The learned bias of items in the window: training, answers, and what it is not."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import recsys
from recsys import Recommender
from recsys.answering.interests import interest_states
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.inference import encode_histories
from recsys.encoders.repeat_bias import RepeatBias, window_items
from recsys.errors import ConfigError
from recsys.jagged import SequenceBatch
from recsys.training.config import TrainingConfig
from recsys.training.losses import TrainingLoss
from recsys.training.objectives import make_task

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 12}
QUICK = {"epochs": 12, "batch_events": 256, "learning_rate": 0.01, "label_smoothing": 0.0}
ENCODERS = ("sasrec", "bert4rec", "mamba")


def _log(repeats: bool, users: int = 60) -> pl.DataFrame:
    """Users who come back to what they had two events ago, or who never have an item twice."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        items = [int(x) for x in rng.permutation(30)[:16]]
        if repeats:
            for at in range(2, 16):
                items[at] = items[at - 2] if rng.random() < 0.8 else items[at]
        rows += [(user, item, 100 * at) for at, item in enumerate(items)]
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.fixture(scope="module", params=[True, False], ids=["repeats", "no repeats"])
def trained(request: Any) -> tuple[bool, Recommender]:
    options = {**SMALL, "repeat_bias": 3, "repeat_by": "last"}
    model = Recommender("sasrec", encoder_options=options, training_options=QUICK, index="exact")
    return request.param, model.fit(_log(request.param))


def test_it_learns_the_habit_of_the_log(trained: tuple[bool, Recommender]) -> None:
    repeats, model = trained
    biases = model.encoder_.repeat_bias
    assert biases is not None
    found = biases.bias.detach()
    if repeats:
        assert found[1] > 0.2  # two or three events ago
        assert found[1] > found[0]
    else:
        assert (found < -0.2).all()


def test_answers_with_seen_items_are_the_best_of_the_biased_scores(trained: tuple[bool, Recommender]) -> None:
    _, model = trained
    store, encoder = model.store_, model.encoder_
    assert isinstance(encoder.repeat_bias, RepeatBias)
    answer = model.recommend(users=[4, 9], k=8, exclude_seen=False)
    for user in (4, 9):
        start, end = store.offsets[user], store.offsets[user + 1]
        state = encode_histories(encoder, store.items, store.timestamps, np.array([start]), np.array([end]))
        scores = (encoder.item_vectors() @ state[0]).double().numpy()
        ids, _, distances = window_items(
            store.items, np.array([start]), np.array([end]), encoder.history_length
        )
        scores[ids] += encoder.repeat_bias.of_distances(distances)
        own = answer.filter(pl.col("user_id") == user)
        best = np.argsort(-scores, kind="stable")[:8]
        raw = model._names.items.decode(best).to_list()
        assert own["item_id"].to_list() == raw
        np.testing.assert_allclose(own["score"].to_numpy(), scores[best], rtol=1e-4, atol=1e-4)


def test_several_query_vectors_score_the_window_by_the_best_of_them(
    trained: tuple[bool, Recommender],
) -> None:
    _, model = trained
    store, encoder = model.store_, model.encoder_
    assert isinstance(encoder.repeat_bias, RepeatBias)
    start, end = store.offsets[4:5], store.offsets[5:6]
    states, _ = interest_states(encoder, store.items, store.timestamps, start, end, 3)
    assert len(states) > 1
    scores = (encoder.item_vectors() @ torch.from_numpy(states).T).amax(1).double().numpy()
    ids, _, distances = window_items(store.items, start, end, encoder.history_length)
    scores[ids] += encoder.repeat_bias.of_distances(distances)
    best = np.argsort(-scores, kind="stable")[:8]
    answer = model.recommend(users=[4], k=8, exclude_seen=False, interests=3)
    assert answer["item_id"].to_list() == model._names.items.decode(best).to_list()


def test_filters_hold_for_the_window_too(trained: tuple[bool, Recommender]) -> None:
    _, model = trained
    store = model.store_
    history = model._names.items.decode(store.items[store.offsets[4] : store.offsets[5]]).to_list()
    allowed = [history[-1], history[-2], *[i for i in range(30) if i not in history][:3]]
    answer = model.recommend(
        users=[4], k=9, exclude_seen=False, allow=sorted(set(allowed)), deny=[history[-1]]
    )
    assert set(answer["item_id"].to_list()) == set(allowed) - {history[-1]}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_loss_is_that_of_the_biased_logits(name: str) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    items, lengths = rng.integers(0, 20, 31), np.array([7, 1, 0, 20, 3])
    encoder = build_encoder(name, 20, encoder_config(name, {**SMALL, "max_length": 20, "repeat_bias": 4}))
    encoder.double()
    assert isinstance(encoder.repeat_bias, RepeatBias)
    with torch.no_grad():
        encoder.repeat_bias.weight.copy_(torch.tensor([0.3, -0.2, 0.1, 0.4]))
        encoder.item_embedding.weight.mul_(20)
    task = make_task(encoder, SequenceBatch.from_lengths(items, lengths), rng)
    loss = TrainingLoss(encoder, None, TrainingConfig(label_smoothing=0.1, temperature=0.7))
    hidden = torch.randn(task.n_targets, 16, dtype=torch.float64, requires_grad=True)
    found = loss(hidden, task.targets, None, task.repeats, sees_later=not encoder.causal)

    logits = hidden @ encoder.item_weight.T
    seen, offsets = task.batch.items.numpy(), task.batch.offsets.numpy()
    rows = np.arange(len(seen)) if task.rows is None else task.rows.numpy()
    for at, row in enumerate(rows):
        sequence = int(np.searchsorted(offsets, row, side="right")) - 1
        place = int(row - offsets[sequence]) + (task.rows is None)
        nearest: dict[int, int] = {}
        for other in range(int(offsets[sequence + 1] - offsets[sequence])):
            item, distance = int(seen[offsets[sequence] + other]), abs(place - other)
            if item < 20 and (other < place or not encoder.causal):
                nearest[item] = min(distance, nearest.get(item, distance))
        for item, distance in nearest.items():
            one = torch.zeros_like(logits)
            one[at, item] = 1.0
            logits = logits + one * encoder.repeat_bias.bias[min(int(np.log2(distance)), 3)]
    wanted = torch.nn.functional.cross_entropy(logits / 0.7, task.targets, label_smoothing=0.1)
    torch.testing.assert_close(found, wanted)
    leaves = (hidden, encoder.item_embedding.weight, encoder.repeat_bias.weight)
    for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_a_sampled_loss_refuses_it_and_a_preset_gives_way(tmp_path: Any) -> None:
    store = prepare(_log(False), tmp_path / "data")
    assert isinstance(store, SequenceStore)
    sampled = {**QUICK, "epochs": 1, "loss": "sampled_softmax"}
    asked = Recommender("sasrec", encoder_options={**SMALL, "repeat_bias": 3}, training_options=sampled)
    with pytest.raises(ConfigError, match=r"repeat_bias = 3 .* sampled softmax.*repeat_bias = 0") as caught:
        asked.fit(store)
    assert "\n" not in str(caught.value)
    told: list[str] = []
    preset = Recommender("sasrec", encoder_options=SMALL, training_options=sampled)
    preset.fit(store, notify=told.append)
    assert any("repeat bias is left out" in line for line in told)
    assert preset.encoder_.repeat_bias is None
    assert preset.configs()[0].repeat_bias > 0


def test_a_saved_model_keeps_its_biases(trained: tuple[bool, Recommender], tmp_path: Any) -> None:
    _, model = trained
    model.save(tmp_path / "run")
    again = recsys.load(tmp_path / "run")
    assert model.encoder_.repeat_bias is not None
    assert again.encoder_.repeat_bias is not None
    assert torch.equal(again.encoder_.repeat_bias.weight, model.encoder_.repeat_bias.weight)
    asked: dict[str, Any] = {"users": [1, 2], "k": 5, "exclude_seen": False}
    assert again.recommend(**asked).equals(model.recommend(**asked))
    assert again.evaluate().metrics == model.evaluate().metrics
