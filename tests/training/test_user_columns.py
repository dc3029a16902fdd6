"""Training leaves users out of half of the windows, and reads nothing of them that it may not know."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys import SequenceStore, prepare
from recsys.datasets.synthetic.columns import action_log
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.evaluation.encoder_functions import hidden_function
from recsys.evaluation.targets import select_targets
from recsys.training.batches import plan_epoch
from recsys.training.column_inputs import column_inputs
from recsys.training.objectives import cloze, make_task

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 20}
OPTIONS: dict[str, Any] = {"event_columns": "action", "request_columns": "action", "user_columns": "region"}


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    log = action_log(300, 30, mean_length=12, seed=1).frame
    return log.with_columns(region=pl.format("r{}", pl.col("user_id").cast(pl.Int64) % 3))


@pytest.fixture(scope="module")
def store(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    return prepare(frame, Path(tmp_path_factory.mktemp("users")) / "data", **OPTIONS)


def _encoder(store: SequenceStore, name: str, **options: Any) -> Any:
    config = encoder_config(name, {**SMALL, "user_columns": ("region",), **options})
    return build_encoder(name, store.n_items, config, columns=column_inputs(store))


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_users_are_left_out_of_half_of_the_windows(name: str, store: SequenceStore) -> None:
    encoder = _encoder(store, name)
    plan = plan_epoch(store, max_length=20, causal=encoder.causal, batch_events=10_000, seed=0, epoch=0)
    batch = plan.batch(store, 0)
    task = make_task(encoder, batch, np.random.default_rng(0))
    again = make_task(encoder, batch, np.random.default_rng(0))
    other = make_task(encoder, batch, np.random.default_rng(1))
    owner = np.repeat(np.arange(task.batch.batch_size), task.batch.lengths)
    left = []
    for codes in (task.batch.event_codes, task.batch.request_codes):
        assert codes is not None
        silent = codes[:, 1].numpy() == 0
        whole = np.bincount(owner, silent) == task.batch.lengths
        assert (whole | (np.bincount(owner, silent) == 0)).all()
        left.append(whole)
    assert np.array_equal(left[0], left[1])  # at the input and the output together
    assert abs(left[0].mean() - 0.5) < 0.12  # 300 windows: four standard deviations
    codes, same, others = (own.batch.event_codes for own in (task, again, other))
    assert codes is not None
    assert same is not None
    assert others is not None
    assert torch.equal(codes, same)
    assert not torch.equal(codes[:, 1], others[:, 1])


def test_a_hidden_first_event_still_has_its_user(store: SequenceStore) -> None:
    plan = plan_epoch(store, max_length=20, causal=False, batch_events=10_000, seed=0, epoch=0)
    batch = plan.batch(store, 0)
    options: dict[str, Any] = {"mask_probability": 0.5, "last_mask_probability": 0.0, "n_user_codes": 1}
    task = cloze(batch, store.n_items, np.random.default_rng(0), **options)
    assert batch.event_codes is not None
    assert task.batch.event_codes is not None
    assert task.rows is not None
    assert torch.equal(task.batch.event_codes[:, 1], batch.event_codes[:, 1])
    assert not task.batch.event_codes[task.rows, 0].any()


def test_one_more_kind_of_column_draws_nothing_that_others_draw(store: SequenceStore) -> None:
    both = {"event_columns": ("action",), "request_columns": ("action",)}
    plan = plan_epoch(store, max_length=20, causal=True, batch_events=10_000, seed=0, epoch=0)
    batch = plan.batch(store, 0)
    plain = make_task(_encoder(store, "sasrec", **both, user_columns=()), batch, np.random.default_rng(0))
    users = make_task(_encoder(store, "sasrec", **both), batch, np.random.default_rng(0))
    for before, after in (
        (plain.batch.event_codes, users.batch.event_codes),
        (plain.batch.request_codes, users.batch.request_codes),
    ):
        assert before is not None
        assert after is not None
        assert torch.equal(before[:, 0], after[:, 0])


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_no_bit_of_a_state_moves_with_what_held_out_events_say_of_users(
    name: str, frame: pl.DataFrame, store: SequenceStore, tmp_path: Path
) -> None:
    held = np.zeros(store.n_events, dtype=bool)
    for user in range(store.n_users):
        held[store.valid_start[user] : store.offsets[user + 1]] = True
    ordered = frame.sort("user_id", "timestamp", maintain_order=True)
    turned = ordered.with_columns(
        region=pl.when(pl.Series(held)).then(pl.lit("elsewhere")).otherwise(pl.col("region"))
    )
    other = prepare(turned, tmp_path / "other", **OPTIONS)
    assert np.array_equal(other.items, store.items)
    encoder = _encoder(store, name).eval()
    with torch.no_grad():
        for rows in (encoder.user_input, encoder.user_output):
            rows.weight.normal_()
    targets = select_targets(store, "test")
    chosen = np.arange(len(targets.target))
    before = hidden_function(encoder, store)(chosen, targets)
    assert torch.equal(before, hidden_function(encoder, other)(chosen, targets))
    assert store.user_codes is not None
    other.user_codes = np.roll(np.array(store.user_codes), 1, axis=0)
    assert not torch.equal(before, hidden_function(encoder, other)(chosen, targets))
