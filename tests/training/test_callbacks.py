"""Callbacks hear of a run from start to end; the validation metric that selects is the one named."""

from collections.abc import Mapping
from typing import Any

import pytest

from recsys import Recommender
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ArgumentError, ConfigError
from recsys.training.callbacks import Callback
from recsys.training.config import TrainingConfig

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}


class _Heard(Callback):
    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_fit_start(self, config: Mapping[str, Any]) -> None:
        self.told.append(("start", config))

    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        self.told.append(("epoch", record))

    def on_fit_end(self, result: Mapping[str, Any] | None) -> None:
        self.told.append(("end", result))


class _Fails(_Heard):
    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        raise ZeroDivisionError


def _model(**training: Any) -> Recommender:
    options = {"epochs": 3, "batch_events": 256, **training}
    return Recommender("sasrec", encoder_options=SMALL, training_options=options)


def test_a_callback_is_told_of_start_epochs_and_end(store: SequenceStore) -> None:
    heard = _Heard()
    model = _model().fit(store, callbacks=[heard])
    assert [what for what, _ in heard.told] == ["start", "epoch", "epoch", "epoch", "end"]
    config = heard.told[0][1]
    assert (config["model"], config["items"], config["training"]["epochs"]) == ("sasrec", store.n_items, 3)
    assert config["encoder"]["d_model"] == 16
    records = [record for what, record in heard.told if what == "epoch"]
    assert records == list(model.history_)
    end = heard.told[-1][1]
    scores = [record["valid"]["ndcg@10"] for record in records]
    assert (end["epochs"], end["best"]) == (3, max(scores))
    assert end["best_epoch"] == 1 + scores.index(max(scores))


def test_a_record_holds_time_and_validation_loss(store: SequenceStore) -> None:
    heard = _Heard()
    _model().fit(store, callbacks=[heard])
    first, last = heard.told[1][1], heard.told[3][1]
    assert first["seconds"] > 0
    assert first["validation_loss"] != last["validation_loss"]
    # 30 items: a model that knows nothing is at log 30 = 3.4 nats.
    assert 0.5 < last["validation_loss"] < 4.5
    assert "loss" not in first["valid"]


def test_a_sampled_loss_has_no_validation_loss_beside_it(store: SequenceStore) -> None:
    model = _model(epochs=1, loss="bce", label_smoothing=0.0).fit(store)
    assert "validation_loss" not in model.history_[0]


def test_a_run_that_fails_tells_its_end(store: SequenceStore) -> None:
    heard, fails = _Heard(), _Fails()
    with pytest.raises(ZeroDivisionError):
        _model().fit(store, callbacks=[heard, fails])
    assert heard.told[-1] == ("end", None)
    assert fails.told[-1] == ("end", None)


def test_what_a_callback_does_to_its_record_stays_with_it(store: SequenceStore) -> None:
    class Clears(Callback):
        def on_epoch_end(self, record: Mapping[str, Any]) -> None:
            record["valid"].clear()

    model = _model(epochs=1).fit(store, callbacks=[Clears()])
    assert "ndcg@10" in model.history_[0]["valid"]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (_Heard(), "must be a list"),
        ([_Heard], "_Heard is a class"),
        ([object()], "object has no on_fit_start"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_read(callbacks: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        _model().fit("/nowhere", callbacks=callbacks)


def test_the_named_metric_selects_the_weights(store: SequenceStore) -> None:
    heard = _Heard()
    model = _model(epochs=6, select="mrr@3", patience=100).fit(store, callbacks=[heard])
    scores = [record["valid"]["mrr@3"] for record in model.history_]
    assert heard.told[-1][1]["best"] == max(scores)
    found = model.evaluate(split="valid", ks=(3,)).metrics["mrr@3"]
    assert found == pytest.approx(max(scores))


def test_the_console_names_what_selects(capsys: pytest.CaptureFixture[str], store: SequenceStore) -> None:
    _model(epochs=1, select="hr@1").fit(store, quiet=False)
    text = capsys.readouterr().err
    assert "hr@1 " in text
    assert "best hr@1 " in text


@pytest.mark.parametrize("name", ["ndcg", "ndcg@0", "map@10", "ndcg@10 ", "NDCG@10", "ndcg@99999"])
def test_a_metric_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="training.select = "):
        TrainingConfig(select=name)
