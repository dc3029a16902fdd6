import dataclasses
import itertools
from pathlib import Path
from typing import Literal

import pytest

from recsys.config import RECBOLE_ALIASES, apply_settings, build, convert, read_toml, to_dict
from recsys.encoders.bert4rec import BERT4RecConfig
from recsys.encoders.mamba import MambaConfig
from recsys.encoders.sasrec import SASRecConfig
from recsys.errors import ConfigError
from recsys.training.config import TrainingConfig

ALL = [SASRecConfig, BERT4RecConfig, MambaConfig, TrainingConfig]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    count: int = 1
    rate: float = 0.5
    flag: bool = True
    pair: tuple[float, float] = (0.1, 0.2)
    kind: Literal["a", "b"] = "a"
    limit: int | None = None


def test_text_becomes_the_annotated_type() -> None:
    values = {"count": "3", "rate": "1e-3", "flag": "false", "pair": "[0.5,0.6]", "kind": "b", "limit": "7"}
    assert build(Example, values, where="x") == Example(
        count=3, rate=1e-3, flag=False, pair=(0.5, 0.6), kind="b", limit=7
    )
    assert build(Example, {"limit": "none"}, where="x").limit is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"coumt": 3}, "unknown key x.coumt; did you mean 'count'?"),
        ({"count": 2.5}, "x.count = 2.5 is not an int"),
        ({"count": True}, "x.count = True is not an int"),
        ({"rate": "fast"}, "x.rate = 'fast' is not a float"),
        ({"rate": "nan"}, "x.rate = 'nan' is not a float"),
        ({"flag": "yes"}, "x.flag = 'yes' is not a bool"),
        ({"kind": "c"}, "x.kind = 'c' is not one of a, b"),
        ({"pair": [1]}, "x.pair = [1]: 2 numbers are needed"),
        ({"count": "none"}, "x.count = 'none' is not an int"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Example, values, where="x")
    assert str(caught.value) == message


@pytest.mark.parametrize("cls", ALL)
def test_a_configuration_survives_the_way_to_text_and_back(cls: type) -> None:
    config = cls()
    assert build(cls, to_dict(config), where="x") == config


@pytest.mark.parametrize("cls", ALL)
def test_every_field_is_documented(cls: type) -> None:
    import ast
    import inspect

    documented: set[str] = set()
    for base in cls.__mro__[:-1]:
        body = ast.parse(inspect.getsource(base)).body[0].body  # type: ignore[attr-defined]
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                documented.add(field.target.id)  # type: ignore[union-attr]
    assert {f.name for f in dataclasses.fields(cls)} == documented


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (SASRecConfig, "d_model", 4),
        (SASRecConfig, "n_heads", 3),
        (SASRecConfig, "n_layers", 0),
        (SASRecConfig, "dropout", 1.0),
        (SASRecConfig, "max_length", 0),
        (SASRecConfig, "attention_dropout", -0.1),
        (SASRecConfig, "d_ff", 0),
        (SASRecConfig, "time_bias", 121),
        (SASRecConfig, "time_bias", -1),
        (SASRecConfig, "relative_positions", -1),
        (SASRecConfig, "relative_positions", 2**17),
        (BERT4RecConfig, "relative_positions", 4),
        (BERT4RecConfig, "mask_probability", 0.0),
        (BERT4RecConfig, "last_mask_probability", 1.5),
        (BERT4RecConfig, "causal_probability", -0.1),
        (BERT4RecConfig, "max_length", 1),
        (MambaConfig, "d_state", 0),
        (MambaConfig, "d_conv", 5),
        (MambaConfig, "expand", 0),
        (MambaConfig, "d_ff", 0),
        (TrainingConfig, "seed", -1),
        (TrainingConfig, "epochs", 0),
        (TrainingConfig, "batch_events", 1),
        (TrainingConfig, "learning_rate", 0.0),
        (TrainingConfig, "betas", (0.9, 1.0)),
        (TrainingConfig, "weight_decay", -1.0),
        (TrainingConfig, "warmup_steps", -1),
        (TrainingConfig, "gradient_clip", -1.0),
        (TrainingConfig, "label_smoothing", 1.0),
        (TrainingConfig, "temperature", 0.0),
        (TrainingConfig, "ema_decay", 1.0),
        (TrainingConfig, "patience", 0),
        (TrainingConfig, "evaluate_every", 0),
        (TrainingConfig, "validation_users", 0),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(cls: type, field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"\.{field} = "):
        cls(**{field: value})


def test_toml_takes_sections_and_recbole_names(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("hidden_size = 32\nstopping_step = 3\n[encoder]\nn_layers = 1\n")
    assert read_toml(path) == {"encoder": {"n_layers": 1, "d_model": 32}, "training": {"patience": 3}}


def test_every_recbole_alias_names_a_field_of_ours() -> None:
    fields = {f"encoder.{f.name}" for cls in ALL[:3] for f in dataclasses.fields(cls)}
    fields |= {f"training.{f.name}" for f in dataclasses.fields(TrainingConfig)}
    assert set(RECBOLE_ALIASES.values()) <= fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[encoder\n", "not valid TOML"),
        ("[encodr]\nx = 1\n", "unknown section [encodr]; did you mean 'encoder'?"),
        ("hiden_size = 3\n", "unknown key 'hiden_size'; did you mean 'hidden_size'?"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.toml: cannot read"):
        read_toml(tmp_path / "nowhere.toml")


def test_settings_are_applied_over_the_file() -> None:
    sections: dict[str, dict[str, object]] = {"encoder": {"d_model": 32}, "training": {}}
    apply_settings(sections, ["encoder.d_model=16", "learning_rate=0.1"])
    assert sections == {"encoder": {"d_model": "16"}, "training": {"learning_rate": "0.1"}}


@pytest.mark.parametrize("text", ["epochs", "=3", "other.epochs=3", "epoch=3"])
def test_a_setting_that_cannot_be_placed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_settings({"encoder": {}, "training": {}}, [text])


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("action, price (EUR)", ("action", "price (EUR)")),
        ("[action,'page']", ("action", "page")),
        ("", ()),
        (["price (EUR)"], ("price (EUR)",)),
    ],
)
def test_names_are_read_from_lists_and_lines(given: object, names: tuple[str, ...]) -> None:
    assert convert(given, tuple[str, ...], "x.names") == names
