"""What is learned of columns, weights and targets of events, and what is never read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic.columns import action_log, noisy_log
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ConfigError, DataError
from recsys.evaluation.encoder_functions import hidden_function
from recsys.evaluation.targets import select_targets
from recsys.jagged import flat_ranges
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.training.batches import plan_epoch
from recsys.training.column_inputs import column_inputs
from recsys.training.config import TrainingConfig
from recsys.training.losses import TrainingLoss
from recsys.training.objectives import cloze, make_task, next_item
from recsys.training.propensity import Propensities
from recsys.training.trainer import Trainer

ALL = ("sasrec", "bert4rec", "mamba")
SMALL: dict[str, Any] = {"d_model": 32, "n_layers": 1, "d_ff": 64, "dropout": 0.1, "max_length": 40}
READS: dict[str, Any] = {"event_columns": ("action",), "request_columns": ("action",)}
TRAINING: dict[str, Any] = {
    "batch_events": 1024,
    "learning_rate": 5e-3,
    "label_smoothing": 0.0,
    "ema_decay": 0.98,
    "epochs": 12,
    "evaluate_every": 4,
}


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    log = action_log(300, 30, mean_length=12, seed=1)
    weighted = log.frame.with_columns(
        (pl.int_range(pl.len()) % 4 + 0.5).alias("w"), (pl.int_range(pl.len()) % 3).alias("kind")
    )
    out = Path(tmp_path_factory.mktemp("actions")) / "data"
    options: dict[str, Any] = {"event_columns": "action", "request_columns": "action"}
    return prepare(weighted, out, weight_column="w", target_where="kind=0,1", **options)


def _encoder(store: SequenceStore, name: str, **options: Any) -> SequenceEncoder:
    small = {**SMALL, "d_model": 16, "d_ff": 16, "max_length": 20, **options}
    return build_encoder(name, store.n_items, encoder_config(name, small), columns=column_inputs(store))


def _shuffled(store: SequenceStore, rows: np.ndarray, name: str) -> SequenceStore:
    """The store with other codes at some events."""
    import copy

    other = copy.copy(store)
    codes = np.array(getattr(store, name))
    codes[rows] = 3 - codes[rows]
    setattr(other, name, codes)
    return other


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_target_is_read_but_its_request_columns(name: str, actions: SequenceStore) -> None:
    """In evaluation: no bit of a state moves with what came with the target or with what follows it."""
    encoder = _encoder(actions, name, **READS).eval()
    with torch.no_grad():
        for rows in (encoder.event_columns, encoder.request_columns):
            assert rows is not None
            rows.weight.normal_()
    targets = select_targets(actions, "test")
    chosen = np.arange(len(targets.target))

    def states(store: SequenceStore) -> Tensor:
        found: Tensor = hidden_function(encoder, store)(chosen, targets)
        return found

    before = states(actions)
    later = flat_ranges(targets.request_position, actions.offsets[1:][targets.user])
    assert torch.equal(before, states(_shuffled(actions, later, "event_codes")))
    earlier = targets.request_position - 1
    assert not torch.equal(before, states(_shuffled(actions, earlier, "event_codes")))
    assert torch.equal(before, states(_shuffled(actions, earlier, "request_codes")))
    assert not torch.equal(before, states(_shuffled(actions, targets.request_position, "request_codes")))


@pytest.mark.parametrize("name", ALL)
def test_a_training_step_reads_nothing_of_its_target(name: str, actions: SequenceStore) -> None:
    """The loss of one target each moves by no bit with what came with it."""
    encoder = _encoder(actions, name, **READS, dropout=0.0, column_dropout=0.0)
    with torch.no_grad():
        assert encoder.event_columns is not None
        encoder.event_columns.weight.normal_()
    causal = encoder.causal
    plan = plan_epoch(actions, max_length=20, causal=causal, batch_events=60, seed=0, epoch=0)
    batch = plan.batch(actions, 0)
    assert batch.event_codes is not None

    def hidden(codes: Tensor) -> tuple[Tensor, np.ndarray]:
        given = replace(batch, event_codes=codes)
        rng = np.random.default_rng(3)
        if causal:
            task = next_item(given)
            rows = np.arange(batch.n_events)[batch.next_item_rows().numpy()]
            rows = rows if task.rows is None else rows[task.rows.numpy()]
            places = rows + 1
        else:
            task = cloze(given, encoder.n_items, rng, mask_probability=0.3, last_mask_probability=0.0)
            assert task.rows is not None
            places = task.rows.numpy()
        with torch.no_grad():
            states = encoder(task.batch)
        return states if task.rows is None else states[task.rows], places

    before, places = hidden(batch.event_codes)
    if causal:  # each target alone: it is an input of later ones
        for row, place in list(enumerate(places))[:12]:
            codes = batch.event_codes.clone()
            codes[place] = 3 - codes[place]
            assert torch.equal(hidden(codes)[0][row], before[row])
    else:
        codes = batch.event_codes.clone()
        codes[places] = 3 - codes[places]
        assert torch.equal(hidden(codes)[0], before)
    others = np.setdiff1d(np.arange(batch.n_events), places)
    codes = batch.event_codes.clone()
    codes[others] = 3 - codes[others]
    assert not torch.equal(hidden(codes)[0], before)


@pytest.mark.parametrize("name", ALL)
def test_context_alone_is_read_and_never_predicted(name: str, actions: SequenceStore) -> None:
    encoder = _encoder(actions, name, **READS)
    plan = plan_epoch(actions, max_length=20, causal=encoder.causal, batch_events=600, seed=0, epoch=0)
    batch = plan.batch(actions, 0)
    assert batch.weights is not None
    task = make_task(encoder, batch, np.random.default_rng(0))
    assert task.weights is not None
    assert task.n_targets == len(task.weights)
    assert (task.weights > 0).all()
    assert task.total_weight == pytest.approx(float(task.weights.sum()), rel=1e-6)
    if encoder.causal:
        follows = batch.next_item_rows() + 1
        wanted = follows[batch.weights[follows] > 0]
        assert torch.equal(task.targets, batch.items[wanted])
        assert torch.equal(task.weights, batch.weights[wanted])
        assert task.batch.n_events == batch.n_events - batch.batch_size
    else:
        assert task.rows is not None
        assert (batch.weights[task.rows] > 0).all()
        context = batch.weights == 0
        assert torch.equal(task.batch.items[context], batch.items[context])


def test_columns_are_left_out_of_a_share_of_the_windows(actions: SequenceStore) -> None:
    encoder = _encoder(actions, "sasrec", **READS, column_dropout=0.3)
    plan = plan_epoch(actions, max_length=20, causal=True, batch_events=10_000, seed=0, epoch=0)
    task = make_task(encoder, plan.batch(actions, 0), np.random.default_rng(0))
    assert task.batch.event_codes is not None
    assert task.batch.request_codes is not None
    owner = np.repeat(np.arange(task.batch.batch_size), task.batch.lengths)
    left = []
    for codes in (task.batch.event_codes, task.batch.request_codes):
        silent = codes[:, 0].numpy() == 0
        whole = np.bincount(owner, silent) == task.batch.lengths
        assert (whole | (np.bincount(owner, silent) == 0)).all()  # a window's are left out together
        left.append(whole)
    # 300 windows at 0.3: four standard deviations are 0.11.
    assert all(abs(own.mean() - 0.3) < 0.11 for own in left)
    assert abs((left[0] & left[1]).mean() - 0.09) < 0.07


def _config(**options: Any) -> TrainingConfig:
    return TrainingConfig(**{"gradient_clip": 0.0, **options})


LOSSES = ("full", "sampled_softmax", "gbce", "bce", "bpr")


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_count_in_every_loss_and_average(loss: str, actions: SequenceStore) -> None:
    """A weighted loss is the weighted mean of the losses of its targets."""
    bias = 4 if loss == "full" else 0
    encoder = _encoder(actions, "sasrec", **READS, dropout=0.0, repeat_bias=bias)
    config = _config(loss=loss, batch_events=200, negatives=0 if loss == "full" else 3)
    trainer = Trainer(encoder, actions, config)
    plan = trainer._plan(0)
    prepared = trainer._prepare(plan, 0, 0)
    task = prepared.task
    assert task.weights is not None
    assert task.rows is not None
    whole = trainer._loss_of(prepared)
    heavy = replace(prepared, task=replace(task, weights=task.weights * 8))
    torch.testing.assert_close(trainer._loss_of(heavy), whole)
    total = torch.zeros(())
    for weight in task.weights.unique().tolist():
        # The same rows and negatives; targets of other weights count nothing.
        own = torch.where(task.weights == weight, 1.0, 0.0)
        share = float((task.weights == weight).sum()) * weight
        total = total + trainer._loss_of(replace(prepared, task=replace(task, weights=own))) * share
    torch.testing.assert_close(total / task.weights.sum(), whole, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_are_averaged_by_their_weights(actions: SequenceStore) -> None:
    encoder = _encoder(actions, "sasrec", dropout=0.0, repeat_bias=0)
    config = TrainingConfig(batch_events=100, accumulate=3, gradient_clip=0.0, epochs=1)
    trainer = Trainer(encoder, actions, config)
    plan = trainer._plan(0)
    group = [trainer._prepare(plan, 0, step) for step in range(3)]
    weights = [one.task.total_weight for one in group]
    losses = [trainer._loss_of(one) for one in group]
    exact = sum(loss * weight for loss, weight in zip(losses, weights, strict=True)) / sum(weights)
    assert isinstance(exact, Tensor)
    wanted = torch.autograd.grad(exact, list(encoder.parameters()))
    from recsys.training.loss_sums import LossSums
    from recsys.training.processes import ALONE

    sums = LossSums(ALONE)
    trainer._optimize(group, weights, sums, 0.0)
    for parameter, gradient in zip(encoder.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    sums.collect(trainer.progress, 0.1)
    mean = trainer.progress.loss_sum / trainer.progress.n_targets
    assert mean == pytest.approx(float(exact.detach()), rel=1e-5)


def test_the_reported_loss_is_the_weighted_mean(actions: SequenceStore) -> None:
    encoder = _encoder(actions, "sasrec", dropout=0.0, repeat_bias=0)
    trainer = Trainer(encoder, actions, TrainingConfig(batch_events=10_000, epochs=1, ema_decay=0.0))
    plan = trainer._plan(0)
    assert plan.n_steps == 1
    task = trainer._prepare(plan, 0, 0).task
    assert task.weights is not None
    with torch.no_grad():
        hidden = encoder(task.batch)[task.rows]
        losses = linear_cross_entropy(hidden, encoder.item_weight, task.targets, reduction="none")
    wanted = float((losses * task.weights).sum() / task.weights.sum())
    assert trainer.run().history[0]["loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_of_context_alone_teaches_nothing(loss: str, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(40), 6),
            "item_id": np.random.default_rng(0).integers(0, 9, 240),
            "timestamp": np.arange(240),
            "buy": np.repeat(np.arange(40) == 0, 6).astype(int),
        }
    )
    store = prepare(frame.with_columns(pl.col("timestamp") + 10**9), tmp_path / "data", target_where="buy=1")
    encoder = _encoder(store, "sasrec", repeat_bias=0)
    few = 0 if loss == "full" else 2
    config = _config(loss=loss, negatives=few, batch_events=12, epochs=2, warmup_steps=0)
    progress = Trainer(encoder, store, config).run()
    assert np.isfinite([record["loss"] for record in progress.history]).all()
    assert progress.history[1]["loss"] < progress.history[0]["loss"]
    assert progress.history[0]["loss"] > 0


def test_evaluation_counts_targets_alone(tmp_path: Path) -> None:
    kinds = {1: "bvbvvbv", 2: "bbvbbvvv", 3: "vvvvvv", 4: "bbbvbv"}
    frame = pl.DataFrame(
        [
            (user, place % 3, 10**9 + 100 * user + place, kind)
            for user, own in kinds.items()
            for place, kind in enumerate(own)
        ],
        schema=["user_id", "item_id", "timestamp", "kind"],
        orient="row",
    )
    store = prepare(frame, tmp_path / "a", target_where="kind=b")
    found = select_targets(store, "test")
    # User 3 has no target, users 1, 2 and 4 their last b.
    assert found.target.tolist() == [2, 1, 1]
    assert found.request_position.tolist() == [5, 11, 25]
    assert found.history_end.tolist() == [5, 11, 25]
    place, length = pl.int_range(pl.len()).over("user_id"), pl.len().over("user_id")
    part = pl.when(2 * place < length - 1).then(pl.lit("train")).otherwise(pl.lit("test"))
    stated = frame.with_columns(part.alias("part"))
    halves = prepare(stated, tmp_path / "b", target_where="kind=b", split_column="part")
    found = select_targets(halves, "test", "all")
    assert found.without_targets == 1
    rows = zip(found.user.tolist(), found.target.tolist(), strict=True)
    assert list(rows) == [(0, 2), (1, 1), (3, 1)]
    first = select_targets(halves, "test")
    assert first.target.tolist() == [2, 1, 1]
    assert (first.history_end <= first.request_position).all()


def _trained(store: SequenceStore, name: str = "sasrec", **encoder: Any) -> Recommender:
    options = {**SMALL, "repeat_bias": 0, **encoder}
    if name == "bert4rec":
        options |= {"max_length": 6, "mask_probability": 0.2, "last_mask_probability": 0.6}
    return Recommender(name, encoder_options=options, training_options=TRAINING).fit(store)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "mamba"])
def test_actions_decide_where_they_are_read(name: str, tmp_path: Path) -> None:
    log = action_log(seed=0)
    assert log.without_column is not None
    assert log.best["hr@1"] > 0.9
    assert log.without_column["hr@1"] < 0.46
    store = prepare(log.frame, tmp_path / "data", event_columns="action")
    read = _trained(store, name, event_columns=("action",)).evaluate()
    assert read["hr@1"] >= 0.85
    assert _trained(store, name).evaluate()["hr@1"] <= 0.5


@pytest.mark.slow
def test_a_request_column_decides_and_a_model_is_asked_by_it(tmp_path: Path) -> None:
    """The page of the event to come decides which of two items it is: known when asking, else missing."""
    rng = np.random.default_rng(0)
    users, length, pairs = 800, 16, 20
    pair, page = rng.integers(0, pairs, (users, 1)), rng.integers(0, 2, (users, length))
    items = 2 * ((pair + 7 * np.arange(length)) % pairs) + page
    frame = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(users), length),
            "item_id": items.ravel(),
            "timestamp": 10**9 + np.arange(users * length),
            "page": np.array(["home", "search"])[page.ravel()],
        }
    )
    store = prepare(frame, tmp_path / "data", request_columns="page")
    model = _trained(store, request_columns=("page",))
    assert model.evaluate()["hr@1"] >= 0.95
    silent = _trained(store)
    assert silent.evaluate()["hr@1"] <= 0.6
    asked = [[2 * ((n - 7) % pairs)] for n in range(pairs)]
    ask: dict[str, Any] = {"histories": asked, "exclude_seen": False}
    for word, page_of in (("home", 0), ("search", 1)):
        found = model.recommend(**ask, k=1, context={"page": word})["item_id"].to_list()
        assert found == [2 * n + page_of for n in range(pairs)]
    both = model.recommend(**ask, k=2)["item_id"].to_numpy().reshape(pairs, 2)
    assert (np.sort(both) == np.stack([2 * np.arange(pairs), 2 * np.arange(pairs) + 1], axis=1)).all()


@pytest.mark.slow
def test_events_of_no_weight_are_not_learned(tmp_path: Path) -> None:
    log = noisy_log(seed=0)
    plain = prepare(log.frame, tmp_path / "plain")
    weighted = prepare(log.frame, tmp_path / "weighted", weight_column="weight")
    assert _trained(weighted).evaluate()["hr@1"] >= 0.85
    assert _trained(plain).evaluate()["hr@1"] <= 0.45


def test_propensities_weigh_targets_by_their_items(actions: SequenceStore) -> None:
    counts = np.array([1, 4, 0, 16, 79])
    weights = Propensities(counts, 0.5).weights.numpy()
    # n^-1/2 over its mean, (1 + 2 + 4 + 79^1/2) / 100.
    mean = (1 + 2 + 4 + 79**0.5) / 100
    assert weights == pytest.approx([1 / mean, 0.5 / mean, 0, 0.25 / mean, 79**-0.5 / mean], rel=1e-6)
    assert (weights[:4] < 10).all()
    rare = Propensities(np.array([1, 999]), 1.0).weights.numpy()
    assert rare == pytest.approx([10, 0.5005005], rel=1e-4)  # 1 over its mean of .002 is cut
    trainer = Trainer(_encoder(actions, "sasrec"), actions, _config(propensity_power=1.0, batch_events=300))
    task = trainer._prepare(trainer._plan(0), 0, 0).task
    plain = Trainer(_encoder(actions, "sasrec"), actions, _config(batch_events=300))
    before = plain._prepare(plain._plan(0), 0, 0).task
    assert task.weights is not None
    assert before.weights is not None
    counted = torch.from_numpy(actions.item_counts())[task.targets]
    ratio = task.weights / before.weights * counted
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio))
    assert torch.equal(task.targets, before.targets)
    store = actions
    with pytest.raises(ConfigError, match=r"does not go with weights or targets of events"):
        Trainer(_encoder(store, "sasrec", repeat_bias=0), store, _config(shard_items=True))


def test_in_batch_negatives_are_expected_as_often_as_their_items_are_targets(actions: SequenceStore) -> None:
    config = TrainingConfig(loss="sampled_softmax", negatives=4, negative_sampling="in_batch")
    loss = TrainingLoss(_encoder(actions, "sasrec"), actions, config)
    rows = flat_ranges(actions.offsets[:-1], actions.valid_start)
    assert actions.event_targets is not None
    counts = np.bincount(actions.items[rows[actions.event_targets[rows]]], minlength=actions.n_items)
    assert (counts < actions.item_counts()).any()
    drawn = loss.draw(torch.arange(8), 0)
    assert drawn is not None
    assert drawn.log_q is not None
    share = counts[drawn.ids.numpy()] / counts.sum()
    np.testing.assert_allclose(drawn.log_q.numpy(), np.log(4 * share), rtol=1e-5)


def test_a_log_whose_targets_are_first_events_is_refused(tmp_path: Path) -> None:
    rows = [
        (user, item, 10**9 + place, int(place in (0, 3, 4)))
        for user in range(3)
        for place, item in enumerate([0, 1, 2, user, 1])
    ]
    names = ["user_id", "item_id", "timestamp", "bought"]
    store = prepare(
        pl.DataFrame(rows, schema=names, orient="row"), tmp_path / "data", target_where="bought=1"
    )
    with pytest.raises(DataError, match="no training event that counts can be predicted"):
        Trainer(_encoder(store, "sasrec"), store, TrainingConfig())
    Trainer(_encoder(store, "bert4rec"), store, TrainingConfig())
