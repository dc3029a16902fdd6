"""`fit` takes a log as it comes, with the options of its preparation, and says what was noticed."""

from pathlib import Path
from typing import Any

import pytest

from recsys import Recommender
from recsys.errors import ArgumentError, DataError

T = 1_600_000_000
COLUMNS: dict[str, list[Any]] = {
    "who": [user for user in range(8) for _ in range(6)],
    "what": [f"item {(user + place) % 7}" for user in range(8) for place in range(6)],
    "when": [T + 10 * user + place for user in range(8) for place in range(6)],
}
NAMES = {"user_column": "who", "item_column": "what", "timestamp_column": "when"}


def small() -> Recommender:
    options = {"d_model": 16, "n_heads": 1, "n_layers": 1}
    return Recommender(
        "sasrec",
        preset="paper",
        encoder_options=options,
        training_options={"epochs": 1},
        backend="reference",
    )


def test_columns_are_fitted_with_their_names_and_split(tmp_path: Path) -> None:
    told: list[str] = []
    model = small()
    with pytest.raises(DataError, match="name it with user_column="):
        model.fit(COLUMNS)
    repeated = {name: [*values, values[0]] for name, values in COLUMNS.items()}
    model.fit(
        repeated,
        out=tmp_path / "run",
        notify=told.append,
        data_options={**NAMES, "split": "last-n", "test_events": 2},
    )
    assert model.store_.meta["split"]["test_events"] == 16
    assert "kept: 1 events that repeat user, item and time of another" in told
    again = small().fit(
        repeated,
        out=tmp_path / "run",
        resume=True,
        data_options={**NAMES, "split": "last-n", "test_events": 2},
    )
    assert again.store_.fingerprint == model.store_.fingerprint
    with pytest.raises(ArgumentError, match="other data"):
        small().fit(repeated, out=tmp_path / "run", resume=True, data_options=NAMES)
    with pytest.raises(ArgumentError, match="is prepared already, so split= comes too late"):
        small().fit(model.store_, data_options={"split": "ratio"})


@pytest.mark.parametrize(
    ("data", "message"), [(None, "data=None is no log"), (5, "data of type int is no log")]
)
def test_what_is_no_log_is_refused_in_a_line(data: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        small().fit(data)
