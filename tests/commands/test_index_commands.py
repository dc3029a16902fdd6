"""`recsys index add` and `remove`, filters by category and several interests on the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import recsys
from recsys import Recommender
from recsys.commands.app import app
from recsys.kernels.shared import backends
from recsys.retrieval import options as options_of_index


def call(*arguments: object) -> Any:
    """Run a command in this process; its JSON, or the error that `main` would print in one line."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def run(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index-commands")
    items = {"item_id": range(30), "genres": ["Drama", "War|Drama", "Comedy"] * 10}
    pl.DataFrame(items).write_csv(folder / "items.csv")
    recsys.prepare(log, folder / "data", items=folder / "items.csv")
    small = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}
    options = {"epochs": 1, "batch_events": 512}
    model = Recommender("sasrec", encoder_options=small, training_options=options, index="exact")
    model.fit(folder / "data").build_index()
    model.save(folder / "run")
    return folder / "run"


def answers(run: Path, *arguments: object) -> list[int]:
    return [row["item"] for row in call("recommend", run, "--history", "1,2", "--k", 60, *arguments)["items"]]


def test_items_come_and_go_from_one_call_to_the_next(run: Path, tmp_path: Path) -> None:
    facts = call("index", "add", run, 500, 501, "--like", "4,5", "--like", "7", "--category", "War",
                 "--category", "Comedy")  # fmt: skip
    assert (facts["items"], facts["added"], facts["gone"]) == (32, 2, 0)
    facts = call("index", "remove", run, 501, 9)
    assert (facts["items"], facts["added"], facts["gone"]) == (30, 1, 1)
    found = answers(run)
    assert 500 in found
    assert not {501, 9} & set(found)
    assert set(answers(run, "--category", "War")) == {*range(4, 30, 3), 500}
    both = answers(run, "--category", "War", "--category", "Comedy", "--include-seen")
    assert set(both) == {*range(1, 30, 3), *range(2, 30, 3), 500}
    vectors = 2 * recsys.load(run).index_.vectors[[4]].numpy()
    np.save(tmp_path / "vectors.npy", vectors)
    call("index", "add", run, 600, "--vectors", tmp_path / "vectors.npy")
    assert abs(answers(run).index(600) - answers(run).index(4)) > 0
    # A new index of the same vectors keeps what came and went; `build` is what `index` does.
    before = answers(run)
    assert call("index", run, "--kind", "exact")["kind"] == "exact"
    assert answers(run) == before
    assert call("index", "build", run)["items"] == 30
    assert answers(run) == before
    with pytest.warns(UserWarning, match="2 added or changed"):
        call("index", run, "--kind", "exact", "--vectors", "mixed")
    assert not {9, 500, 600} & set(answers(run))


def test_adding_what_is_there_says_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    facts = call("index", "add", tmp_path / "run", 3, 900, "--like", "4", "--like", "5")
    assert facts["replaced"] == ["3"]
    assert call("index", "add", tmp_path / "run", 900, "--like", "6")["replaced"] == ["900"]
    call("index", "remove", tmp_path / "run", 900)
    assert call("index", "add", tmp_path / "run", 900, "--like", "6")["replaced"] == []


def test_a_history_is_read_from_a_line_or_a_file(log: pl.DataFrame, tmp_path: Path) -> None:
    named = log.with_columns(item_id=pl.format("Film {}, The", pl.col("item_id")))
    model = Recommender(
        "sasrec", encoder_options={"d_model": 16, "n_layers": 1}, training_options={"epochs": 1}
    )
    model.fit(named, out=tmp_path / "run")
    wanted = model.recommend(histories=[["Film 1, The", "Film 2, The"]])["item_id"].to_list()
    (tmp_path / "history.txt").write_text("Film 1, The\nFilm 2, The\n")
    for options in (
        ("--history", '"Film 1, The", "Film 2, The"'),
        ("--history-file", tmp_path / "history.txt"),
    ):
        found = call("recommend", tmp_path / "run", *options)
        assert [row["item"] for row in found["items"]] == wanted
        assert found["source"] == "model"
    with pytest.warns(UserWarning, match="most popular"):
        assert call("recommend", tmp_path / "run", "--history", "")["source"] == "popular"
    wrong: list[tuple[tuple[Any, ...], str]] = [
        (("--history", '"Film 1, The'), "a quotation mark is left open"),
        (("--history", "1", "--history-file", tmp_path / "history.txt"), "pass either"),
        (("--user", "1", "--user", "2"), "--user is given 2 times"),
    ]
    for refused, message in wrong:
        with pytest.raises(recsys.errors.RecsysError, match=message):
            call("recommend", tmp_path / "run", *refused)


def test_several_interests_and_categories_are_scored(run: Path, tmp_path: Path) -> None:
    call("score", run, "--out", tmp_path / "parts", "--k", 4, "--interests", 3, "--category", "Comedy")
    (part,) = (tmp_path / "parts").glob("part-*")
    model = recsys.load(run)
    assert pl.read_parquet(part).equals(model.recommend(k=4, interests=3, category="Comedy"))
    several = call("recommend", run, "--user", 3, "--interests", 4)["items"]
    frame = model.recommend(users=[3], interests=4)
    assert [row["item"] for row in several] == frame["item_id"].to_list()


def test_what_cannot_be_changed_is_said(run: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (("add", run, 700), "one of them"),
        (("add", run, 700, "--like", "999"), "unknown item '999'"),
        (("add", run, 700, "--category", "Wat"), "unknown category"),
        (("add", run, 700, "--like", "1", "--like", "2"), "1 items are added"),
        (("add", run, 700, "--vectors", tmp_path / "none.npy"), "none.npy: cannot be read"),
        (("remove", run, 999), "unknown item '999'"),
    ):
        with pytest.raises(recsys.errors.RecsysError, match=words):
            call("index", *arguments)
    model = recsys.load(run)
    model._decoder = None
    model.save(tmp_path / "bare")
    with pytest.raises(recsys.errors.RetrievalError, match="holds no index to change"):
        call("index", "remove", tmp_path / "bare", 3)


@pytest.mark.parametrize("command", ["index", "score", "recommend"])
def test_the_backend_that_is_asked_for_reaches_every_command(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    forward = recsys.encoders.base.SequenceEncoder.user_state

    def told(self: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(backends._preferred.get())
        return forward(self, *arguments, **options)

    monkeypatch.setattr(recsys.encoders.base.SequenceEncoder, "user_state", told)
    more: dict[str, list[object]] = {
        "index": ["--vectors", "latent", "--kind", "exact"],
        "score": ["--out", tmp_path / "parts"],
        "recommend": ["--user", "3"],
    }
    call(command, run, *more[command], "--backend", "reference")
    assert set(seen) == {"reference"}


def test_an_approximate_index_tells_how_much_it_finds(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_of_index, "VECTORS_PER_LIST", 5)
    assert call("index", run, "--kind", "exact")["recall"] == 1.0
    lists = ["index", str(run), "--kind", "ivf", "--set", "nlist=2", "--set", "nprobe=2"]
    assert call(*lists)["recall"] == 1.0
    said = " ".join(CliRunner().invoke(app, lists).stdout.split())
    assert "finds 100.0% of the 10 best items, over states of up to 256 users." in said
    monkeypatch.setattr(Recommender, "measure_recall", lambda self: 0.42)
    said = " ".join(CliRunner().invoke(app, lists).stdout.split())
    assert "finds 42.0% of the 10 best items" in said
    assert "raise nprobe with --set" in said
