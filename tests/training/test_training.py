import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ConfigError, DataError, RunError
from recsys.training.checkpoint import Progress
from recsys.training.config import TrainingConfig
from recsys.training.estimate import Estimate
from recsys.training.optimizer import make_optimizer, set_learning_rate
from recsys.training.reporting import SilentReporter
from recsys.training.trainer import Trainer

ITEM_SETTINGS = {"item_parts", "item_id_dropout", "item_projection"}
"""Settings that came with version 3 of checkpoints."""
INPUT_SETTINGS = {"substitute", "substitute_by"}
"""Settings that came with version 5."""

COLUMN_SETTINGS = {"event_columns", "request_columns", "column_dropout", "repeat_by"}
"""Settings that came with version 6, or just before it."""

LATER_SETTINGS = {"user_columns", "user_column_dropout", "no_click", "item_sum"}
"""Settings that came with versions 7 to 9."""

TINY: dict[str, Any] = {"amp": False, "epochs": 3, "batch_events": 128, "warmup_steps": 2}

# BERT4Rec as it is learns in 25 epochs of this small log from some seeds only.
QUICK: dict[str, dict[str, Any]] = {"bert4rec": {"ends": "plain", "mask_probability": 0.4, "dropout": 0.0}}
"""Options of encoders with which a short training lowers the loss."""


def _encoder(store: SequenceStore, name: str = "sasrec", seed: int = 0, **options: object) -> SequenceEncoder:
    config = encoder_config(name, {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16, **options})
    return build_encoder(name, store.n_items, config, seed=seed)


def _train(
    store: SequenceStore,
    *,
    name: str = "sasrec",
    folder: Path | None = None,
    encoder: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    config = TrainingConfig(**{**TINY, **options})
    trainer = Trainer(_encoder(store, name, config.seed, **(encoder or {})), store, config, folder=folder)
    trainer.run()
    return trainer


def _weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.encoder.parameters()])


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_training_lowers_the_loss(store: SequenceStore, name: str) -> None:
    trained = _train(store, name=name, epochs=25, learning_rate=0.01, encoder=QUICK.get(name))
    history = trained.progress.history
    losses = [record["loss"] for record in history]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.2


@pytest.mark.parametrize(
    ("name", "loss", "share"),
    [("sasrec", loss, 0.9) for loss in ("sampled_softmax", "gbce", "bce", "bpr")]
    + [("mamba", "bce", 0.9), ("bert4rec", "sampled_softmax", 0.97), ("bert4rec", "gbce", 0.97)],
)
def test_training_lowers_sampled_losses(store: SequenceStore, name: str, loss: str, share: float) -> None:
    encoder = QUICK.get(name)
    trainer = _train(store, name=name, epochs=25, learning_rate=0.01, loss=loss, encoder=encoder)
    losses = [record["loss"] for record in trainer.progress.history]
    assert sum(losses[-5:]) < share * sum(losses[:5])


@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_the_same_seed_gives_the_same_run_and_another_another(store: SequenceStore, name: str) -> None:
    first, again, other = (_weights(_train(store, name=name, seed=s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class _Killed(Exception):
    """Stands for the end of the process."""


class _KilledAfter(SilentReporter):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch_ended(self, record: dict[str, Any], progress: Progress) -> None:
        if progress.epoch == self.epochs:
            raise _Killed


def _validate(encoder: SequenceEncoder) -> dict[str, float]:
    # Any function of the weights will do: what counts is that resuming repeats it.
    value = float(encoder.item_weight.detach().abs().mean())
    return {"ndcg@10": value, "hr@10": value}


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("loss", ["full", "sampled_softmax", "gbce"])
def test_an_interrupted_run_resumes_bit_for_bit(
    store: SequenceStore, tmp_path: Path, ema_decay: float, loss: str
) -> None:
    config = TrainingConfig(**{**TINY, "epochs": 5, "ema_decay": ema_decay, "loss": loss, "negatives": 4})
    whole = Trainer(_encoder(store), store, config, validate=_validate, folder=tmp_path / "whole")
    whole.run()
    folder = tmp_path / "cut"
    with pytest.raises(_Killed):
        Trainer(
            _encoder(store), store, config, validate=_validate, folder=folder, reporter=_KilledAfter(2)
        ).run()
    resumed = Trainer(_encoder(store, seed=7), store, config, validate=_validate, folder=folder)
    resumed.run(resume=True)
    assert torch.equal(_weights(whole), _weights(resumed))
    kept = [{k: v for k, v in r.items() if "second" not in k} for r in resumed.progress.history]
    assert kept == [{k: v for k, v in r.items() if "second" not in k} for r in whole.progress.history]


@pytest.mark.parametrize("options", [{}, {"loss": "bpr", "ema_decay": 0.9}, {"accumulate": 2}])
def test_a_run_cut_within_an_epoch_resumes_bit_for_bit(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    config = TrainingConfig(**{**TINY, "batch_events": 64, **options})
    whole = Trainer(_encoder(store), store, config)
    whole.run()
    cut = Trainer(_encoder(store), store, config, folder=tmp_path, checkpoint_seconds=0.0)

    def dies(optimizer: torch.optim.Optimizer, settings: TrainingConfig, step: int, done: float) -> None:
        if step == 9:
            raise _Killed
        set_learning_rate(optimizer, settings, step, done)

    monkeypatch.setattr("recsys.training.trainer.set_learning_rate", dies)
    with pytest.raises(_Killed):
        cut.run()
    monkeypatch.undo()
    state = json.loads((tmp_path / "checkpoint" / "state.json").read_text())
    assert state["progress"]["step"] > 0
    resumed = Trainer(_encoder(store, seed=7), store, config, folder=tmp_path)
    resumed.run(resume=True)
    assert torch.equal(_weights(whole), _weights(resumed))
    assert [r["loss"] for r in whole.progress.history] == [r["loss"] for r in resumed.progress.history]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"learning_rate": 0.5}, "training configuration"),
        ({"d_model": 32}, "encoder configuration"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    store: SequenceStore, tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    _train(store, folder=tmp_path)
    options = {k: v for k, v in change.items() if k == "d_model"}
    training = {k: v for k, v in change.items() if k != "d_model"}
    other = Trainer(
        _encoder(store, **options), store, TrainingConfig(**{**TINY, **training}), folder=tmp_path
    )
    with pytest.raises(RunError, match=f"another {what}"):
        other.run(resume=True)


def test_more_epochs_may_be_asked_of_a_finished_run(store: SequenceStore, tmp_path: Path) -> None:
    _train(store, folder=tmp_path, epochs=2)
    more = Trainer(_encoder(store), store, TrainingConfig(**{**TINY, "epochs": 4}), folder=tmp_path)
    assert more.run(resume=True).epoch == 4
    assert torch.equal(_weights(more), _weights(_train(store, epochs=4)))


def test_damage_to_a_checkpoint_is_refused(store: SequenceStore, tmp_path: Path) -> None:
    trainer = _train(store, folder=tmp_path)
    (path,) = (tmp_path / "checkpoint").glob("tensors-*.safetensors")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(RunError, match="missing or damaged"):
        trainer.run(resume=True)
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(RunError, match="missing or damaged"):
        trainer.run(resume=True)
    state = tmp_path / "checkpoint" / "state.json"
    state.write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        trainer.run(resume=True)
    state.write_text('{"format": 1}')
    with pytest.raises(RunError, match="not a checkpoint"):
        trainer.run(resume=True)
    state.unlink()
    with pytest.raises(RunError, match="no checkpoint to go on from"):
        trainer.run(resume=True)


def test_a_full_disk_leaves_the_earlier_checkpoint(
    store: SequenceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    _train(store, folder=tmp_path, epochs=1)
    before = {p.name: p.read_bytes() for p in (tmp_path / "checkpoint").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    more = Trainer(_encoder(store), store, TrainingConfig(**TINY), folder=tmp_path)
    with pytest.raises(RunError, match="the disk is full"):
        more.run(resume=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "checkpoint").iterdir()} == before


def test_early_stopping_keeps_the_best_weights(store: SequenceStore) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.25, 0.1, 0.9])
    seen: list[torch.Tensor] = []

    def validate(encoder: SequenceEncoder) -> dict[str, float]:
        seen.append(encoder.item_weight.detach().clone())
        return {"ndcg@10": next(scores)}

    trainer = Trainer(
        _encoder(store), store, TrainingConfig(**{**TINY, "epochs": 50, "patience": 3}), validate=validate
    )
    progress = trainer.run()
    assert (progress.epoch, progress.best_epoch, progress.best, progress.stopped) == (5, 2, 0.3, True)
    assert torch.equal(trainer.encoder.item_weight, seen[1])
    assert not trainer.encoder.training


def test_validation_is_due_every_so_many_epochs_and_at_the_end(store: SequenceStore) -> None:
    trainer = Trainer(
        _encoder(store),
        store,
        TrainingConfig(**{**TINY, "epochs": 5, "evaluate_every": 2}),
        validate=_validate,
    )
    history = trainer.run().history
    assert [r["epoch"] for r in history if "valid" in r] == [2, 4, 5]


def test_a_diverging_loss_is_named(store: SequenceStore) -> None:
    with pytest.raises(RunError, match=r"not finite in epoch \d+; lower training.learning_rate"):
        _train(store, learning_rate=1e30, gradient_clip=0.0, warmup_steps=0)


def test_a_log_with_nothing_to_learn_is_refused() -> None:
    offsets = np.array([0, 3, 6])
    empty = SimpleNamespace(
        items=np.zeros(6, dtype=np.int32),
        timestamps=None,
        offsets=offsets,
        valid_start=offsets[1:] - 2,
        most_trained=1,
        n_items=4,
        path="nothing",
        fingerprint="x",
    )
    with pytest.raises(DataError, match="nothing: no user has two training events"):
        Trainer(_encoder(empty), empty, TrainingConfig(**TINY)).run()  # type: ignore[arg-type]


def test_metrics_are_written_one_line_per_epoch(store: SequenceStore, tmp_path: Path) -> None:
    _train(store, folder=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) and line["events_per_second"] > 0 for line in lines)


def test_the_learning_rate_warms_up_linearly() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = []
    for step in range(6):
        set_learning_rate(optimizer, TrainingConfig(learning_rate=0.4, warmup_steps=4), step, 0.0)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.4, 0.4, 0.4]), ("linear", [0.4, 0.2, 0.0]), ("cosine", [0.4, 0.2, 0.0])],
)
def test_schedules_end_with_the_last_epoch(schedule: Any, rates: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    config = TrainingConfig(learning_rate=0.4, warmup_steps=0, schedule=schedule)
    found = []
    for done in (0.0, 0.5, 1.0):
        set_learning_rate(optimizer, config, 7, done)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(rates)
    set_learning_rate(optimizer, config, 7, 0.25)
    quarter = {"constant": 1.0, "linear": 0.75, "cosine": 0.5 + 0.5**1.5}[schedule]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * quarter)


def test_a_trainer_follows_the_schedule(store: SequenceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(
        "recsys.training.trainer.set_learning_rate", lambda o, c, step, done: seen.append(done)
    )
    _train(store, schedule="linear")
    steps = len(seen) // 3
    assert seen == sorted(seen)
    assert [seen[0], seen[steps], seen[2 * steps]] == pytest.approx([0.0, 1 / 3, 2 / 3])


def test_more_epochs_go_on_unless_the_rate_depends_on_them(store: SequenceStore, tmp_path: Path) -> None:
    _train(store, folder=tmp_path / "constant")
    config = TrainingConfig(**{**TINY, "epochs": 4})
    longer = Trainer(_encoder(store), store, config, folder=tmp_path / "constant")
    assert longer.run(resume=True).epoch == 4
    _train(store, folder=tmp_path / "falling", schedule="cosine")
    config = dataclasses.replace(config, schedule="cosine")
    with pytest.raises(RunError, match="another training configuration"):
        Trainer(_encoder(store), store, config, folder=tmp_path / "falling").run(resume=True)


def test_more_patience_takes_up_a_stopped_run(store: SequenceStore, tmp_path: Path) -> None:
    def trainer(patience: int) -> Trainer:
        config = TrainingConfig(**{**TINY, "epochs": 8, "patience": patience})
        scores = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0])
        encoder = _encoder(store)
        return Trainer(encoder, store, config, validate=lambda e: {"ndcg@10": next(scores)}, folder=tmp_path)

    assert trainer(2).run().epoch == 3
    assert trainer(2).run(resume=True).epoch == 3
    assert trainer(4).run(resume=True).epoch > 3


def test_a_checkpoint_of_version_1_goes_on_under_its_own_settings(
    store: SequenceStore, tmp_path: Path
) -> None:
    config = TrainingConfig(**{**TINY, "epochs": 4})
    _train(store, folder=tmp_path, epochs=4)
    whole = load_file(next((tmp_path / "checkpoint").glob("tensors-*")))
    _train(store, folder=tmp_path)
    _as_version_1(tmp_path / "checkpoint" / "state.json")
    with pytest.raises(RunError, match="another encoder configuration"):
        Trainer(_encoder(store, tie_items=False), store, config, folder=tmp_path).run(resume=True)
    other = dataclasses.replace(config, learning_rate=0.5)
    with pytest.raises(RunError, match="another training configuration"):
        Trainer(_encoder(store), store, other, folder=tmp_path).run(resume=True)
    assert Trainer(_encoder(store), store, config, folder=tmp_path).run(resume=True).epoch == 4
    resumed = load_file(next((tmp_path / "checkpoint").glob("tensors-*")))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_checkpoint_of_version_2_goes_on(store: SequenceStore, tmp_path: Path) -> None:
    config = TrainingConfig(**{**TINY, "epochs": 4})
    _train(store, folder=tmp_path)
    path = tmp_path / "checkpoint" / "state.json"
    state = json.loads(path.read_text())
    for name in ITEM_SETTINGS | COLUMN_SETTINGS | LATER_SETTINGS:
        del state["identity"]["encoder"][name]
    for name in INPUT_SETTINGS | {"shard_items", "propensity_power"}:
        del state["identity"]["training"][name]
    del state["items"]
    path.write_text(json.dumps({**state, "format": 2}))
    trainer = Trainer(_encoder(store), store, config, folder=tmp_path)
    assert trainer.run(resume=True).epoch == 4
    assert torch.equal(_weights(trainer), _weights(_train(store, epochs=4)))


def _as_version_1(path: Path) -> None:
    """Rewrite a state as the first version wrote it, when some settings did not exist."""

    def digest(settings: dict[str, Any]) -> str:
        left_out = {"tie_items", "norm", "feed_forward", "schedule", "repeat_bias", "select"}
        left_out |= {"epochs", "patience", "prefetch", "shard_items", "propensity_power"}
        left_out |= ITEM_SETTINGS | INPUT_SETTINGS | COLUMN_SETTINGS | LATER_SETTINGS
        kept = {key: value for key, value in settings.items() if key not in left_out}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    state = json.loads(path.read_text())
    identity = state.pop("identity")
    del state["notes"], state["items"]
    fingerprint = {
        "training configuration": digest(identity["training"]),
        "encoder configuration": digest(identity["encoder"]),
        "dataset": identity["dataset"],
        "loss": identity["loss"],
    }
    path.write_text(json.dumps({**state, "format": 1, "fingerprint": fingerprint}))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *((name, "full") for name in ("sasrec", "bert4rec", "mamba")),  # each head, by a dense gradient
        ("sasrec", "sampled_softmax"),  # a sparse one, with logQ, from every event
        ("bert4rec", "bce"),  # a sparse one from masked events alone
    ],
)
def test_untied_items_learn_both_tables(store: SequenceStore, name: str, loss: Any) -> None:
    config = TrainingConfig(**{**TINY, "epochs": 25, "learning_rate": 0.02, "loss": loss, "ema_decay": 0.5})
    encoder = _encoder(store, name, tie_items=False, **QUICK.get(name, {}))
    assert encoder.output_embedding is not None
    before = [encoder.item_embedding.weight.detach().clone(), encoder.item_weight.detach().clone()]
    trainer = Trainer(encoder, store, config)
    losses = [record["loss"] for record in trainer.run().history]
    assert losses[-1] < losses[0] - 0.02
    assert not torch.equal(before[0], encoder.item_embedding.weight)
    assert not torch.equal(before[1], encoder.item_weight)
    assert encoder.item_weight is encoder.output_embedding.weight
    assert encoder.output_embedding.weight.shape == (store.n_items, 16)


def test_only_matrices_decay_and_never_state_space_parameters(store: SequenceStore) -> None:
    encoder = _encoder(store, "mamba")
    optimizer = make_optimizer(encoder, TrainingConfig(weight_decay=0.1))
    names = {p: n for n, p in encoder.named_parameters()}
    decayed, plain = ({names[p] for p in group["params"]} for group in optimizer.param_groups)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert optimizer.param_groups[1]["weight_decay"] == 0.0
    assert "item_embedding.weight" in decayed
    assert "blocks.0.mixer.A_log" in plain
    assert all(encoder.get_parameter(n).ndim < 2 or n.endswith("A_log") for n in plain)


def test_tables_of_the_attention_bias_do_not_decay(store: SequenceStore) -> None:
    encoder = _encoder(store, time_bias=9, relative_positions=4)
    names = {p: n for n, p in encoder.named_parameters()}
    groups = make_optimizer(encoder, TrainingConfig(weight_decay=0.1)).param_groups
    undecayed = {names[p] for p in groups[1]["params"]}
    assert {f"blocks.0.attention.tables.{table}" for table in ("time_table", "position_table")} <= undecayed


class _Estimates(SilentReporter):
    def __init__(self) -> None:
        self.seen: list[Estimate] = []

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        self.seen.append(estimate)


def test_the_estimate_says_what_a_run_needs(store: SequenceStore) -> None:
    reporter = _Estimates()
    encoder = _encoder(store)
    Trainer(encoder, store, TrainingConfig(**{**TINY, "epochs": 1}), reporter=reporter).run()
    (estimate,) = reporter.seen
    assert estimate.parameters == sum(p.numel() for p in encoder.parameters())
    assert estimate.memory_bytes > 16 * estimate.parameters
    assert estimate.epoch_seconds > 0
    assert 0 < estimate.padding_avoided < 1
    assert "padding avoided" in estimate.line()


ENCODER_CHANGES: dict[str, dict[str, Any]] = {
    "sasrec": {
        "d_model": 32,
        "n_layers": 2,
        "dropout": 0.5,
        "max_length": 8,
        "n_heads": 4,
        "d_ff": 24,
        "attention_dropout": 0.3,
        "positions": "learned",
        "block": "prenorm",
        "scale_embedding": True,
        "time_bias": 64,
        "relative_positions": 8,
        "tie_items": False,
        "repeat_bias": 4,
        "norm": "rms",
        "feed_forward": "gelu",
    },
    "bert4rec": {
        "tie_items": False,
        "repeat_bias": 4,
        "norm": "rms",
        "feed_forward": "gelu",
        "mask_probability": 0.5,
        "last_mask_probability": 0.9,
        "causal_probability": 1.0,
        "ends": "plain",
    },
    "mamba": {
        "tie_items": False,
        "repeat_bias": 4,
        "norm": "rms",
        "feed_forward": "swiglu",
        "d_state": 8,
        "d_conv": 3,
        "expand": 3,
        "d_ff": 24,
        "block": "mamba4rec",
        "dt_init": "zero",
    },
}
TRAINING_CHANGES: dict[str, Any] = {
    "seed": 3,
    "accumulate": 2,
    "loss": "gbce",
    "epochs": 2,
    "batch_events": 256,
    "learning_rate": 0.01,
    "betas": (0.5, 0.9),
    "weight_decay": 5.0,
    "warmup_steps": 50,
    "schedule": "cosine",
    "gradient_clip": 0.01,
    "label_smoothing": 0.3,
    "temperature": 3.0,
    "ema_decay": 0.9,
    "substitute": 0.3,
    "propensity_power": 1.0,
}


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [(n, f, v) for n, fields in ENCODER_CHANGES.items() for f, v in fields.items()],
)
def test_every_encoder_field_changes_the_run(store: SequenceStore, name: str, field: str, value: Any) -> None:
    def run(**options: Any) -> torch.Tensor:
        trainer = Trainer(_encoder(store, name, **options), store, TrainingConfig(**{**TINY, "epochs": 1}))
        trainer.run()
        return _weights(trainer)

    plain, changed = run(), run(**{field: value})
    assert plain.shape != changed.shape or not torch.equal(plain, changed)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("option", [{"time_bias": 64}, {"relative_positions": 9}])
def test_bias_tables_are_trained_and_change_the_run(
    store: SequenceStore, name: str, option: dict[str, int]
) -> None:
    def run(**options: Any) -> SequenceEncoder:
        config = TrainingConfig(**{**TINY, "weight_decay": 0.0})
        trainer = Trainer(_encoder(store, name, **options), store, config)
        trainer.run()
        return trainer.encoder

    plain, biased = run(), run(**option)
    tables = [p for n, p in biased.named_parameters() if ".tables." in n]
    assert len(tables) == 1
    assert tables[0].abs().max() > 1e-3
    assert not torch.equal(plain.item_weight, biased.item_weight)


@pytest.mark.parametrize("name", ["sasrec", "bert4rec"])
def test_a_log_of_order_alone_cannot_train_a_time_bias(log: pl.DataFrame, tmp_path: Path, name: str) -> None:
    ordered = prepare(log, tmp_path / "data", time_unit="order")
    assert ordered.timestamps is None
    with pytest.raises(ConfigError, match=r"carries order alone .* encoder.time_bias = 0") as caught:
        Trainer(_encoder(ordered, name, time_bias=64), ordered, TrainingConfig(**TINY))
    assert "\n" not in str(caught.value)
    Trainer(_encoder(ordered, name, relative_positions=9), ordered, TrainingConfig(**TINY))


SAMPLED_CHANGES: list[tuple[str, dict[str, Any], Any]] = [
    ("negatives", {"loss": "bce"}, 3),
    ("negative_sampling", {"loss": "bce"}, "popularity"),
    ("negative_sampling", {"loss": "sampled_softmax", "negatives": 20}, "in_batch"),
    ("popularity_power", {"loss": "bpr", "negative_sampling": "popularity"}, 0.1),
    ("gbce_t", {"loss": "gbce", "negatives": 8}, 0.1),
    ("label_smoothing", {"loss": "sampled_softmax", "negatives": 8}, 0.2),
    ("temperature", {"loss": "bpr"}, 0.5),
]


@pytest.mark.parametrize(("field", "others", "value"), SAMPLED_CHANGES)
def test_every_field_of_sampled_losses_changes_the_run(
    store: SequenceStore, field: str, others: dict[str, Any], value: Any
) -> None:
    plain, changed = _train(store, **others), _train(store, **others, **{field: value})
    assert not torch.equal(_weights(plain), _weights(changed))


@pytest.mark.parametrize("name", ["sasrec", "mamba"])
def test_hashed_items_train(store: SequenceStore, name: str) -> None:
    plain = _encoder(store, name)
    encoder = _encoder(store, name, item_hashes=2, item_buckets=12)
    fewer = _encoder(store, name, item_hashes=2, item_buckets=11)
    more = _encoder(store, name, item_hashes=3, item_buckets=12)
    assert plain.item_weight.shape == encoder.item_weight.shape
    assert not torch.equal(encoder.item_weight, fewer.item_weight)
    assert not torch.equal(encoder.item_weight, more.item_weight)
    for loss in ("full", "sampled_softmax"):
        config = TrainingConfig(**{**TINY, "epochs": 20, "learning_rate": 0.01, "loss": loss})
        trainer = Trainer(_encoder(store, name, item_hashes=2, item_buckets=12), store, config)
        losses = [record["loss"] for record in trainer.run().history]
        assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize(("field", "value"), TRAINING_CHANGES.items())
def test_every_training_field_changes_the_run(store: SequenceStore, field: str, value: Any) -> None:
    assert not torch.equal(_weights(_train(store)), _weights(_train(store, **{field: value})))


def test_no_field_is_without_a_test_of_its_effect() -> None:
    covered = set(TRAINING_CHANGES) | {
        "select",  # tests/training/test_callbacks.py
        "patience",  # test_early_stopping_keeps_the_best_weights
        "evaluate_every",  # test_validation_is_due_every_so_many_epochs_and_at_the_end
        "validation_users",  # tests/test_recommender.py
        "amp",  # tests/training/test_precision.py
        "prefetch",  # tests/training/test_training_parts.py
        "shard_items",  # tests/training/processes/test_sharded_items.py
        "substitute_by",  # tests/training/test_substitution.py
        *(field for field, _, _ in SAMPLED_CHANGES),
    }
    assert covered == {f.name for f in dataclasses.fields(TrainingConfig)}
    for name, changes in ENCODER_CHANGES.items():
        own = {f.name for f in dataclasses.fields(encoder_config(name, {}))}
        own -= {"item_hashes", "item_buckets"}  # test_hashed_items_train
        own -= {"clock", "clock_half_life"}  # tests/encoders/test_clock.py
        own -= ITEM_SETTINGS  # tests/training/test_item_tower.py
        own -= COLUMN_SETTINGS  # tests/training/test_event_columns.py, tests/encoders/test_repeat_bias.py
        own -= LATER_SETTINGS  # tests/training/test_user_columns.py, tests/training/test_slates.py
        assert own <= set(changes) | set(ENCODER_CHANGES["sasrec"]), name
