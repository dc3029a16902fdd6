"""Events that are predicted and not read: where they belong in a batch, and what is learned with them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys import Recommender, SequenceStore, prepare
from recsys.datasets.synthetic.noise import denoise_log
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.jagged import SequenceBatch
from recsys.training.batches import EpochPlan
from recsys.training.config import TrainingConfig
from recsys.training.further_targets import UnreadTargets
from recsys.training.objectives import make_task
from recsys.training.reporting import SilentReporter
from recsys.training.trainer import Trainer

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 20}


def _store(folder: Path, **options: Any) -> SequenceStore:
    """Two users whose items 8 and 9 are unlike the others; the last two events are held out."""
    rows = [
        *((0, item) for item in (9, 0, 1, 8, 9, 2, 3, 9, 3, 3)),
        *((1, item) for item in (4, 8, 5, 6, 4, 5)),
    ]
    rows += [(2, item) for item in (8, 9, 9, 9, 9)]
    table = [(user, item, 1_600_000_000 + 3_600 * t, "k") for t, (user, item) in enumerate(rows)]
    log = pl.DataFrame(table, schema=["user", "item", "ts", "kind"], orient="row")
    items = pl.DataFrame({"item_id": range(10), "tag": list("aaaabbbcde")})
    return prepare(log, folder, items=items, item_tags="tag", denoise=0.5, **options)


def test_they_are_targets_of_the_state_before(tmp_path: Path) -> None:
    store = _store(tmp_path / "data")
    assert store.train_sequence(0).tolist() == [0, 1, 2, 3]
    encoder = build_encoder("sasrec", store.n_items, encoder_config("sasrec", SMALL))
    unread = UnreadTargets.of(store, encoder)
    assert unread is not None
    # The second user's window comes first.
    plan = EpochPlan(store.offsets[[1, 0]], store.valid_start[[1, 0]], np.array([0, 2]))
    batch = plan.batch(store, 0)
    task = make_task(encoder, batch, np.random.default_rng(0), unread(batch, plan, 0))
    assert task.batch.items.tolist() == [4, 5, 0, 1, 2]
    assert task.rows is not None
    assert task.rows.tolist() == [0, 1, 2, 3, 4, 0, 3, 3]
    assert task.targets.tolist() == [5, 6, 1, 2, 3, 7, 7, 8]
    assert task.weights is None


def test_the_repeat_bias_counts_what_was_read(tmp_path: Path) -> None:
    store = _store(tmp_path / "data")
    config = encoder_config("sasrec", {**SMALL, "repeat_bias": 4})
    encoder = build_encoder("sasrec", store.n_items, config)
    unread = UnreadTargets.of(store, encoder)
    assert unread is not None
    plan = EpochPlan(store.offsets[:1], store.valid_start[:1], np.array([0, 1]))
    batch = plan.batch(store, 0)
    task = make_task(encoder, batch, np.random.default_rng(0), unread(batch, plan, 0))
    assert task.repeats is not None
    trained = Trainer(encoder, store, TrainingConfig(epochs=1, amp=False, batch_events=64))
    trained.run()


def test_a_state_that_is_asked_at_a_moment_has_one_target(tmp_path: Path) -> None:
    zoned = _store(tmp_path / "zoned", time_zone="UTC")
    plain = encoder_config("sasrec", SMALL)
    assert UnreadTargets.of(zoned, build_encoder("sasrec", 10, plain)) is not None
    clocked = encoder_config("sasrec", {**SMALL, "clock": "pool"})
    assert UnreadTargets.of(zoned, build_encoder("sasrec", 10, clocked)) is None
    said: list[str] = []

    class Told(SilentReporter):
        def explained(self, line: str) -> None:
            said.append(line)

    encoder = build_encoder("sasrec", 9, clocked)
    Trainer(encoder, zoned, TrainingConfig(epochs=1, amp=False), reporter=Told()).run()
    assert "3 events that are not read, as noise, are not predicted either" in said[-1]
    cloze = encoder_config("bert4rec", SMALL)
    assert UnreadTargets.of(zoned, build_encoder("bert4rec", 10, cloze)) is None


@pytest.mark.slow
def test_without_its_noise_a_log_teaches_what_the_clean_one_does(tmp_path: Path, one_thread: None) -> None:
    """Users of one group each, 30% of whose training events are of others."""
    log = denoise_log(seed=2)
    options: dict[str, Any] = {"items": log.items, "item_tags": "group"}
    noisy = prepare(log.frame, tmp_path / "noisy", denoise=0.3, **options)
    clean = prepare(log.frame.filter(~log.foreign), tmp_path / "clean", **options)
    assert noisy.items.tolist() == clean.items.tolist()
    assert noisy.offsets.tolist() == clean.offsets.tolist()
    assert noisy.valid_start.tolist() == clean.valid_start.tolist()
    assert noisy.unread is not None
    assert noisy.meta["counts"]["noise_events"] == int(log.foreign.sum())

    group = log.items["group"].to_numpy()

    def expected_hits(store: SequenceStore) -> float:
        """Expected HR@10 of the lists: half the share of their items that are of the user's group."""
        model = Recommender(
            "sasrec",
            preset="paper",
            encoder_options={**SMALL, "d_model": 32, "d_ff": 32, "dropout": 0.1},
            training_options={
                "epochs": 10,
                "batch_events": 1024,
                "learning_rate": 5e-3,
                "evaluate_every": 10,
            },
            device="cpu",
        ).fit(store)
        encoder = model.encoder_.eval()
        histories = [store.history(user) for user in range(store.n_users)]
        with torch.no_grad():
            states = encoder.user_state(SequenceBatch.from_sequences(histories))
            lists = (states @ encoder.item_weight.T).topk(10).indices.numpy()
        own = group[store.items[store.offsets[1:] - 1]]
        return log.best * float((group[lists] == own[:, None]).mean())

    found, wanted, read = (
        expected_hits(store) for store in (noisy, clean, prepare(log.frame, tmp_path / "read", **options))
    )
    assert found >= wanted - 0.005, (found, wanted)
    assert read < wanted - 0.01, (read, wanted)
