"""Habits of hands: parameters as scikit-learn reads them, objects that show themselves, names as typed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys import Recommender
from recsys.config import apply_settings
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ConfigError, RunError
from recsys.training.history import History, read_history

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}
QUICK: dict[str, Any] = {"epochs": 2, "batch_events": 256}


def _make(name: str = "sasrec", **options: Any) -> Recommender:
    return Recommender(name, encoder_options=SMALL, training_options=QUICK, index="exact", **options)


@pytest.fixture(scope="module")
def model(store: SequenceStore) -> Recommender:
    return _make().fit(store)


def test_parameters_are_what_the_constructor_was_given() -> None:
    model = _make("mamba", seed=4)
    own = model.get_params(deep=False)
    assert own["encoder"] == "mamba"
    assert own["encoder_options"] is SMALL
    assert (own["seed"], own["preset"], own["clock"]) == (4, "tuned", False)
    assert Recommender(**own).get_params() == model.get_params()
    assert model.get_params()["training_options__epochs"] == 2


def test_set_parameters_and_single_entries_of_options() -> None:
    model = _make()
    assert model.set_params(seed=7, training_options__epochs=5, encoder_options__dropout=0.1) is model
    assert model.seed == 7
    assert model.training_options == {**QUICK, "epochs": 5}
    assert QUICK["epochs"] == 2
    assert model.configs()[0].dropout == 0.1
    assert Recommender().set_params(training_options__epochs=3).configs()[1].epochs == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": 1, "sed": 2}, "no parameter 'sed'; did you mean 'seed'"),
        ({"seed__x": 2}, "seed has no entries; only encoder_options, training_options have"),
    ],
)
def test_an_unknown_parameter_changes_nothing(values: dict[str, Any], message: str) -> None:
    model = _make()
    with pytest.raises(ConfigError, match=message):
        model.set_params(**values)
    assert model.seed == 0


def test_scikit_learn_clones_it(model: Recommender) -> None:
    base = pytest.importorskip("sklearn.base")
    clone = base.clone(model)
    assert clone.get_params() == model.get_params()
    assert not hasattr(clone, "encoder_")


def test_what_clone_does_holds_without_scikit_learn(model: Recommender) -> None:
    given = {name: copy.deepcopy(value) for name, value in model.get_params(deep=False).items()}
    clone = type(model)(**given)
    assert all(clone.get_params(deep=False)[name] is value for name, value in given.items())


def test_a_model_says_in_one_line_what_it_is(model: Recommender) -> None:
    fresh = Recommender("mamba", seed=3, training_options={"epochs": 2})
    assert repr(fresh) == "Recommender('mamba', training_options={'epochs': 2}, seed=3), not fitted"
    text = repr(model)
    assert text.startswith("Recommender('sasrec', encoder_options={'d_model': 16, ")
    assert "fitted on frame (60 users, 30 items, " in text
    assert "2 epochs, loss" in text
    assert "\n" not in text


def test_a_loaded_model_shows_only_what_differs(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    loaded = recsys.load(tmp_path / "run")
    assert (
        "encoder_options={'d_model': 16, 'n_layers': 1, 'max_length': 16, 'item_sum': True, 'd_ff': 16}"
        in repr(loaded)
    )
    assert "training_options={'epochs': 2, 'batch_events': 256}" in repr(loaded)
    assert "<td" in loaded._repr_html_()
    assert loaded.history_ == model.history_


def test_what_is_shown_holds_no_markup_from_data() -> None:
    shown = Recommender("sasrec", training_options={"loss": "<script>alert(1)</script>"})._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_a_wrong_name_still_has_a_repr() -> None:
    shown = repr(Recommender("sasrek", encoder_options={"x": 1}))
    assert shown == "Recommender('sasrek', encoder_options={'x': 1}), not fitted"


def test_a_history_shows_itself_and_stays_a_list(model: Recommender) -> None:
    history = model.history_
    assert isinstance(history, list)
    assert len(history) == 2
    best = max(history, key=lambda record: record["valid"]["ndcg@10"])
    assert history.best is best
    assert f"best valid ndcg@10 {best['valid']['ndcg@10']:.4f} in epoch {best['epoch']}" in repr(history)
    assert history._repr_html_().count("<tr>") == 3
    assert repr(History()) == "History(no epochs)"
    assert json.loads(json.dumps(history)) == history


def test_a_run_keeps_its_history(store: SequenceStore, tmp_path: Path) -> None:
    model = _make().fit(store, out=tmp_path / "run")
    assert recsys.load(tmp_path / "run").history_ == model.history_


def test_a_history_of_before_and_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_history(path) == []
    old = {"epoch": 1, "loss": 2.0, "seconds": 1.0, "events_per_second": 5.0}
    path.write_text(json.dumps(old) + "\n")
    assert "valid loss" not in read_history(path)._repr_html_()
    for text in ("{", "3", '{"epoch": 1}', "null"):
        path.write_text(json.dumps(old) + "\n" + text + "\n")
        with pytest.raises(RunError, match="line 2 is not the record of an epoch"):
            read_history(path)


@pytest.mark.parametrize("name", ["SASRec", "SASREC", "sas-rec", "SAS_Rec", "sas rec"])
def test_encoder_names_in_any_spelling(name: str) -> None:
    assert Recommender(name).configs() == Recommender("sasrec").configs()
    assert Recommender("BERT4Rec").configs() == Recommender("bert4rec").configs()


def test_a_run_of_a_name_in_other_letters_has_the_registered_one(
    store: SequenceStore, tmp_path: Path
) -> None:
    _make("Mamba").fit(store, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["encoder"] == "mamba"
    assert recsys.load(tmp_path / "run").encoder == "mamba"


@pytest.mark.parametrize(
    ("encoder", "training", "message"),
    [
        ({"n_factors": 64}, {}, "unknown key encoder.n_factors; did you mean 'd_model'?"),
        ({"num_blocks": 2}, {}, "unknown key encoder.num_blocks; did you mean 'n_layers'?"),
        ({"session_max_len": 50}, {}, "did you mean 'max_length'?"),
        (
            {"learning_rate": 0.1},
            {},
            "key encoder.learning_rate; did you mean 'training.learning_rate'",
        ),
        ({}, {"lr": 0.1}, "unknown key training.lr; did you mean 'learning_rate'?"),
        ({}, {"batch_size": 128}, "did you mean 'batch_events'?"),
        ({}, {"n_negatives": 128}, "did you mean 'negatives'?"),
        ({}, {"valid_metric": "MRR@10"}, "did you mean 'select'?"),
        ({}, {"dropout_rate": 0.1}, "unknown key training.dropout_rate; did you mean 'encoder.dropout'?"),
        (
            {"hidden_size": 32, "d_model": 32},
            {},
            "d_model is given twice, as d_model and as hidden_size",
        ),
        ({"num_layers": 1, "n_layers": 1}, {}, "encoder.n_layers is given twice"),
        ({"n_layers": 1.5}, {}, "encoder.n_layers = 1.5 is not an int"),
    ],
)
def test_names_of_other_libraries_get_a_hint(encoder: Any, training: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recommender("sasrec", encoder_options=encoder, training_options=training).configs()
    assert message in str(caught.value)


def test_recboles_names_mean_in_options_what_they_mean_in_toml() -> None:
    encoder, training = Recommender(
        "sasrec",
        encoder_options={"hidden_size": 32, "MAX_ITEM_LIST_LENGTH": 20, "n_layers": 1},
        training_options={"stopping_step": 4},
    ).configs()
    assert (encoder.d_model, encoder.max_length, encoder.n_layers) == (32, 20, 1)
    assert training.patience == 4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=1", "unknown key 'lr'; did you mean 'training.learning_rate'?"),
        ("foo=1", "unknown key 'foo'; write it as section.key, for example training.epochs"),
        ("epoch=1", "unknown key 'epoch'; did you mean 'epochs'?"),
    ],
)
def test_a_setting_without_a_section_is_told_how_to_be_written(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_settings({"encoder": {}, "training": {}}, [setting])
    assert message in str(caught.value)


def test_a_run_goes_on_under_any_spelling_of_its_encoder(store: SequenceStore, tmp_path: Path) -> None:
    _make("SASRec").fit(store, out=tmp_path / "run")
    more = Recommender(
        "SAS-Rec", encoder_options=SMALL, training_options={**QUICK, "epochs": 3}, index="exact"
    )
    assert len(more.fit(store, out=tmp_path / "run", resume=True).history_) == 3
