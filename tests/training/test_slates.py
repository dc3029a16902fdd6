"""The loss over what was shown: by its definition, by hand, and on a log where only it finds the truth."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic.slates import slate_log
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.errors import ConfigError, DataError
from recsys.jagged import SequenceBatch
from recsys.training.batches import EpochPlan
from recsys.training.config import TrainingConfig
from recsys.training.objectives import next_item
from recsys.training.shown_loss import shown_loss
from recsys.training.slates import ShownTargets
from recsys.training.trainer import Trainer

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "dropout": 0.0, "max_length": 20}

# Of the user 0 the last two events are held out. (item, slate); the items are 0 to 5.
EVENTS: list[tuple[int | None, list[int]]] = [
    (0, [0, 1]),
    (None, [2, 3]),
    (None, [4]),
    (1, [1, 2, 5]),
    (2, []),
    (3, [3]),
    (None, [0, 5]),
    (4, [1, 0]),
    (5, [5, 0]),
    (None, [1]),
    (0, [0, 1]),
    (1, [0, 1]),
]


@pytest.fixture
def store(tmp_path: Path) -> SequenceStore:
    rows = [(0, item, 1_000_000_000 + 60 * n, slate) for n, (item, slate) in enumerate(EVENTS)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shown"], orient="row")
    return prepare(log, tmp_path / "data", shown_column="shown")


def _encoder(n_items: int, name: str = "sasrec", **options: Any) -> SequenceEncoder:
    return build_encoder(name, n_items, encoder_config(name, {**SMALL, **options}), seed=1)


def _plan(store: SequenceStore) -> tuple[EpochPlan, SequenceBatch]:
    plan = EpochPlan(np.array([0]), np.array([int(store.valid_start[0])]), np.array([0, 1]))
    return plan, plan.batch(store, 0)


def test_targets_are_events_with_a_slate(store: SequenceStore) -> None:
    plan, batch = _plan(store)
    task, slates = ShownTargets.of(store, _encoder(6))(next_item(batch), batch, plan, 0)
    # Of the events 1 2 3 4 5 behind the first, 2 has no slate and 3 nothing but itself. That of 4 lacks it.
    assert task.rows is not None
    assert task.rows.tolist() == [0, 3, 4]
    assert task.targets.tolist() == [1, 4, 5]
    assert slates.ids.tolist() == [[1, 2, 5], [0, 1, 4], [0, 5, 5]]
    assert slates.log_q is None
    assert slates.taken is None
    assert task.weights is None


def test_slates_of_which_nothing_was_taken_are_targets_of_the_state_before(store: SequenceStore) -> None:
    plan, batch = _plan(store)
    shown = ShownTargets.of(store, _encoder(6, no_click=True))
    assert shown.line() is None
    task, slates = shown(next_item(batch), batch, plan, 0)
    # That before the held-out events has no state in training. The slate [3] says that nothing was worse.
    assert task.rows is not None
    assert task.rows.tolist() == [0, 2, 3, 4, 0, 0, 3]
    assert task.targets.tolist() == [1, 3, 4, 5, 2, 4, 0]
    assert slates.taken is not None
    assert slates.taken.tolist() == [True] * 4 + [False] * 3
    assert slates.ids[4:].tolist() == [[2, 3, 2], [4, 4, 4], [0, 5, 0]]
    line = ShownTargets.of(store, _encoder(6)).line()
    assert line is not None
    assert line.startswith("4 slates of which nothing was taken are left out: encoder.no_click = true")


def test_weights_of_slates(tmp_path: Path) -> None:
    rows = [(0, item, 1_000_000_000 + 60 * n, slate, float(n % 4)) for n, (item, slate) in enumerate(EVENTS)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shown", "w"], orient="row")
    store = prepare(log, tmp_path / "data", shown_column="shown", weight_column="w")
    plan, batch = _plan(store)
    task, slates = ShownTargets.of(store, _encoder(6, no_click=True))(next_item(batch), batch, plan, 0)
    # Weights are the rows' numbers modulo 4: those of 0 are the event of item 5 and no slate here.
    assert task.weights is not None
    assert task.targets.tolist() == [1, 3, 4, 2, 4, 0]
    assert task.weights.tolist() == [3, 1, 3, 1, 2, 2]
    assert slates.taken is not None
    assert slates.taken.tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("no_click", [False, True])
@pytest.mark.parametrize("options", [{}, {"tie_items": False}, {"item_hashes": 2, "item_buckets": 16}])
def test_it_is_the_softmax_of_ragged_slates(options: dict[str, Any], no_click: bool, weighted: bool) -> None:
    """Value and gradients, in float64."""
    rng = np.random.default_rng(5)
    encoder = _encoder(12, no_click=no_click, **options).double()
    if encoder.no_click is not None:
        torch.nn.init.constant_(encoder.no_click, 0.7)
    hidden = torch.from_numpy(rng.normal(size=(9, 16))).requires_grad_()
    targets = torch.from_numpy(rng.integers(0, 12, 9))
    taken = torch.arange(9) % 3 > 0 if no_click else None
    weights = torch.from_numpy(rng.random(9) + 0.1) if weighted else None
    ragged = [
        sorted({int(target), *rng.choice(12, size, replace=False).tolist()})
        for target, size in zip(targets, [1, 2, 5, 3, 1, 8, 0, 4, 2], strict=True)
    ]
    width = max(map(len, ragged))
    padded = torch.tensor(
        [own + [int(t)] * (width - len(own)) for own, t in zip(ragged, targets, strict=True)]
    )

    def definition() -> Tensor:
        losses = []
        for row, own in enumerate(ragged):
            scores = (encoder.scored_items(torch.tensor(own)) @ hidden[row]) / 0.8
            place = own.index(int(targets[row]))
            if encoder.no_click is not None:
                scores = torch.cat((scores, encoder.no_click))
                if taken is not None and not taken[row]:
                    place = len(own)
            losses.append(scores.logsumexp(0) - scores[place])
        found = torch.stack(losses)
        return found.mean() if weights is None else (found * weights).sum() / weights.sum()

    parameters = [hidden, *(p for p in encoder.parameters() if p.requires_grad)]
    results = []
    for loss in (definition(), shown_loss(encoder, hidden, targets, padded, taken, weights, 0.8)):
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        dense = [None if g is None else (g.to_dense() if g.is_sparse else g) for g in gradients]
        results.append((loss, dense))
    (wanted, of_wanted), (found, of_found) = results
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6 if options.get("item_hashes") else 1e-12)
    for own, other in zip(of_found, of_wanted, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            assert torch.allclose(own, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("encoder", "training", "message"),
    [
        ({"name": "bert4rec"}, {}, "this encoder learns hidden ones: choose the encoder sasrec or mamba"),
        (
            {"repeat_bias": 4},
            {},
            "encoder.repeat_bias = 4 is learned by the full softmax and the loss is softmax",
        ),
        ({"no_click": True, "request_columns": ("kind",)}, {}, "a state is asked for once, at the hour"),
        (
            {},
            {"shard_items": True},
            "training.loss = 'shown' is out of range: it must be another loss where training.shard_items",
        ),
        (
            {},
            {"label_smoothing": 0.1},
            "training.label_smoothing = 0.1 is out of range: it must be 0 with training.loss = 'shown'",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    tmp_path: Path, encoder: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    rows = [(0, item, 60 * n + 10**9, slate, "k") for n, (item, slate) in enumerate(EVENTS)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shown", "kind"], orient="row")
    store = prepare(log, tmp_path / "data", shown_column="shown", request_columns="kind")
    own = {**SMALL, **encoder}
    name = own.pop("name", "sasrec")
    with pytest.raises(ConfigError, match=message) as caught:
        Recommender(
            name,
            preset="paper",
            encoder_options=own,
            training_options={"loss": "shown", "epochs": 1, **training},
            device="cpu",
        ).fit(store)
    assert "\n" not in str(caught.value)


def test_a_log_must_say_what_was_shown(tmp_path: Path) -> None:
    rows = [(user, item, 10**9 + item, [item, 5]) for user in range(3) for item in range(5)]
    log = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "shown"], orient="row")
    config = TrainingConfig(loss="shown")
    plain = prepare(log, tmp_path / "plain")
    with pytest.raises(
        ConfigError, match=r"keeps nothing of what was shown: prepare the log with shown_column="
    ):
        Trainer(_encoder(5), plain, config)
    slates = prepare(log, tmp_path / "slates", shown_column="shown")
    with pytest.raises(ConfigError, match="has no row with a slate and without an item between two events"):
        Trainer(_encoder(5, no_click=True), slates, config)
    for loss in ("auto", "full", "bpr"):
        with pytest.raises(ConfigError, match=f"'shown' alone, and the loss is '{loss}': set training.loss"):
            Trainer(_encoder(5, no_click=True), slates, TrainingConfig(loss=loss))
    late = log.with_columns(pl.when(pl.col("item_id") > 2).then("shown").alias("shown"))
    with pytest.raises(DataError, match="no training event that can be predicted has a slate"):
        Trainer(_encoder(5), prepare(late, tmp_path / "late", shown_column="shown"), config)


def _leads(model: Recommender, store: SequenceStore) -> tuple[float, float]:
    """Mean score of the second half of the items above the first half's, and that of nothing above it."""
    encoder = model.encoder_.eval()
    histories = [store.history(user, "all") for user in range(200)]
    with torch.no_grad():
        states = encoder.user_state(SequenceBatch.from_sequences(histories))
        scores = (states @ encoder.item_weight.T).mean(0)
        half = len(scores) // 2
        common, rare = float(scores[:half].mean()), float(scores[half:].mean())
        nothing = 0.0 if encoder.no_click is None else float(encoder.no_click)
    return rare - common, nothing - common


@pytest.mark.slow
def test_what_is_shown_most_is_not_what_is_wanted(tmp_path: Path, one_thread: None) -> None:
    """Ten times as often shown, half as much wanted: the softmax over the catalog takes it for the better."""
    store = prepare(slate_log(1_500, nothing=0.5), tmp_path / "data", shown_column="shown")
    options = {**SMALL, "dropout": 0.1}
    training = {
        "epochs": 5,
        "batch_events": 1024,
        "learning_rate": 5e-3,
        "warmup_steps": 10,
        "evaluate_every": 5,
    }

    def trained(loss: str, **encoder: Any) -> Recommender:
        return Recommender(
            "sasrec",
            preset="paper",
            encoder_options={**options, **encoder},
            training_options={**training, "loss": loss},
            device="cpu",
        ).fit(store)

    shown = trained("shown", no_click=True)

    rare, nothing = _leads(shown, store)
    assert rare == pytest.approx(math.log(2), abs=0.1)
    assert nothing == pytest.approx(math.log(0.5), abs=0.1)
    assert _leads(trained("full"), store)[0] < 0
    shown.save(tmp_path / "run")
    again = Recommender.load(tmp_path / "run")
    assert _leads(again, store) == (rare, nothing)
