"""The recipe search on a log of a few users: first the recipe, then draws, the same after an interruption."""

import json
from pathlib import Path
from typing import Any

import pytest

from recsys.benchmarks.accuracy.running import train
from recsys.benchmarks.accuracy.search import SPACES, read_space, search, search_table
from recsys.errors import ConfigError

SPACE = """
recipe = "toy/sasrec-small"
[encoder]
dropout = [0.1, 0.2, 0.5]
d_ff = { low = 4, high = 32, log = true }
[training]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""


def _space(place: Path, text: str = SPACE) -> Any:
    (place / "toy-space.toml").write_text(text)
    return read_space(str(place / "toy-space.toml"), recipes=place / "recipes")


def _search(place: Path, trials: int, runs: str = "runs") -> dict[str, Any]:
    options: dict[str, Any] = {"data": place, "runs": place / runs, "results": place / f"{runs}-found"}
    return search(_space(place), trials, device="cpu", **options)


def test_every_space_of_the_checkout_can_be_read() -> None:
    for path in SPACES.glob("*.toml"):
        assert read_space(path.stem).choices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPACE.replace("d_ff", "d_fff"), "did you mean 'd_ff'"),
        (SPACE.replace("0.5]", "1.5]"), "encoder.dropout = 1.5"),
        (SPACE.replace("low = 1e-3, ", ""), "takes a list of values, or"),
        (SPACE.replace("sasrec-small", "knn"), "not one encoder's recipe"),
        ("recipe = 3\nspeed = 1\n", "speed"),
    ],
)
def test_a_wrong_space_is_one_line(place: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _space(place, text)


def test_an_unknown_space_names_the_known() -> None:
    with pytest.raises(ConfigError, match=r"known: .*beauty-sasrec"):
        read_space("nothing")


def test_a_search_starts_with_the_recipe_and_goes_on(place: Path) -> None:
    pytest.importorskip("optuna")
    path = place / "recipes/toy/sasrec-small.toml"
    path.write_text(path.read_text().replace("d_model = 16", "d_model = 16\nd_ff = 16\ndropout = 0.2"))
    first = _search(place, 2)
    own, drawn = first["trials"]
    assert own["settings"] == {
        "encoder.dropout": 0.2,
        "encoder.d_ff": 16,
        "training.learning_rate": 1e-3,
    } or (own["settings"]["encoder.dropout"] in (0.1, 0.2, 0.5))
    assert own["valid"]["ndcg@10"] >= 0
    assert 4 <= drawn["settings"]["encoder.d_ff"] <= 32
    assert "result" not in own
    longer = _search(place, 4)
    assert longer["trials"][:2] == first["trials"]
    assert len(longer["trials"]) == 4
    whole = _search(place, 4, "others")
    settings = [trial["settings"] for trial in whole["trials"]]
    assert settings == [trial["settings"] for trial in longer["trials"]]
    written = json.loads((place / "runs-found/toy-space.json").read_text())
    assert written["trials"] == longer["trials"]
    lines = search_table(longer).splitlines()
    assert lines[0] == "| dropout | d_ff | learning_rate | valid NDCG@10 | HR@10 | epoch | training |"
    figures = [float(line.split("|")[4]) for line in lines[2:]]
    assert figures == sorted(figures, reverse=True)


def test_an_interrupted_trial_is_taken_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    seen: list[Any] = []

    def dies(recipe: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(recipe.configuration(0))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return train(recipe, *arguments, **options)

    monkeypatch.setattr("recsys.benchmarks.accuracy.search.train", dies)
    with pytest.raises(KeyboardInterrupt):
        _search(place, 3)
    found = _search(place, 3)
    assert len(found["trials"]) == 3
    assert seen[2] == seen[1]
    assert [seen[i] for i in (0, 2, 3)] == [
        _space(place).with_settings(trial["settings"]).configuration(0) for trial in found["trials"]
    ]
