from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, RetrievalError, RunError, UnknownIdError

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}


@pytest.fixture(scope="module")
def folder(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    items = {
        "item_id": range(30),
        "title": [f"Film {i}" for i in range(30)],
        "genres": ["Drama", "War|Drama"] * 15,
    }
    pl.DataFrame(items).write_csv(folder / "items.csv")
    recsys.prepare(log, folder / "data", items=folder / "items.csv")
    return folder


@pytest.fixture
def model(folder: Path) -> Recommender:
    options = {"epochs": 1, "batch_events": 512}
    if not (folder / "run").exists():
        Recommender("sasrec", encoder_options=SMALL, training_options=options, index="exact").fit(
            folder / "data", out=folder / "run"
        )
    return recsys.load(folder / "run", index="exact")


def test_an_added_item_is_answered_under_its_own_name(model: Recommender, tmp_path: Path) -> None:
    best = model.recommend(histories=[[1, 2, 3]], k=1, exclude_seen=False)["item_id"][0]
    vector = 2 * model.index_.vectors[[best]].numpy()
    model.add_items([777], vectors=vector)
    frame = model.recommend(histories=[[1, 2, 3]], k=3, exclude_seen=False)
    assert frame["item_id"].to_list()[:2] == [777, best]
    assert frame["title"].to_list()[:2] == [None, f"Film {best}"]
    ids, _ = model.recommend_arrays(histories=[[1, 2, 3]], k=1)
    assert ids.tolist() == [[777]]
    assert 777 not in model.recommend(histories=[[1]], k=40, deny=[777])["item_id"]
    assert model.recommend(histories=[[1]], k=40, allow=["777"])["item_id"].to_list() == [777]
    with pytest.raises(UnknownIdError, match="777"):
        model.recommend(histories=[[777]])
    with pytest.warns(UserWarning, match="most popular"):
        popular = model.recommend(histories=[[]], k=40)
    assert popular["item_id"].n_unique() == 30
    model.score(tmp_path / "parts", [3], k=40)
    (part,) = (tmp_path / "parts").glob("part-*")
    assert 777 in pl.read_parquet(part)["item_id"]


def test_a_removed_item_is_answered_to_nobody_and_may_come_back(model: Recommender) -> None:
    vector = model.index_.vectors[[5]].numpy()
    model.remove_items([5, 6])
    for frame in (model.recommend(k=40, exclude_seen=False), model.recommend(histories=[[5]], k=40)):
        assert not {5, 6} & set(frame["item_id"].to_list())
    with pytest.warns(UserWarning, match="most popular"):
        assert not {5, 6} & set(model.recommend(histories=[[]], k=40)["item_id"].to_list())
    model.add_items([5], vectors=vector)
    assert 5 in model.recommend(histories=[[1]], k=40)["item_id"]
    with pytest.raises(UnknownIdError, match="999"):
        model.remove_items([999])


def test_new_items_may_be_made_of_known_ones(model: Recommender) -> None:
    vectors = model.index_.vectors.numpy()
    model.add_items([100, 101], like=[[2, 4], [7]])
    model.add_items([102], category=["War"])
    live = model.decoder_.changing().snapshot()
    got = live.vectors(model._names.answerable.encode([100, 101, 102]))
    np.testing.assert_allclose(got[0], (vectors[2] + vectors[4]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(got[1], vectors[7])
    np.testing.assert_allclose(got[2], vectors[1::2].mean(axis=0), rtol=1e-5, atol=1e-7)
    model.add_items([103], like=[[100]])


@pytest.mark.parametrize("vectors", ["latent", "mixed"])
def test_other_vectors_take_new_items_too(model: Recommender, vectors: Any) -> None:
    model.build_index("exact", vectors=vectors)
    before = model.recommend(histories=[[1, 2]], k=40)
    model.add_items([100], like=[[int(before["item_id"][0])]])
    after = model.recommend(histories=[[1, 2]], k=40)
    assert after["item_id"].to_list() == [before["item_id"][0], 100, *before["item_id"].to_list()[1:]]


def test_a_bad_addition_is_refused(model: Recommender) -> None:
    vector = np.zeros((1, 16), dtype=np.float32)
    for arguments, words in (
        ({}, "one of them"),
        ({"vectors": vector, "like": [[1]]}, "not both"),
        ({"like": [[1]], "category": ["War", "Drama"]}, "1 items are added and 2 categories"),
        ({"like": [[1], [2]]}, "1 items are added and 2 lists"),
        ({"like": [[]]}, "at least one known item"),
        ({"vectors": vector[:, :3]}, "give \\(1, 16\\)"),
    ):
        with pytest.raises(ArgumentError, match=words):
            model.add_items([100], **arguments)
    with pytest.raises(UnknownIdError, match="unknown category 'Wat'"):
        model.add_items([100], like=[[1]], category=["Wat"])
    with pytest.raises(ArgumentError, match="not a whole number"):
        model.add_items(["abc"], vectors=vector)
    model.build_index("exact", vectors="latent", aggregate="local")
    with pytest.raises(ArgumentError, match="local vectors cannot take new items"):
        model.add_items([100], like=[[1]])


def reopened(model: Recommender, folder: Path) -> Recommender:
    assert model.index_.exact  # built on first use, and saved with the model
    model.save(folder)
    return recsys.load(folder)


def test_what_came_and_went_survives_reopening(model: Recommender, tmp_path: Path) -> None:
    run = tmp_path / "run"
    again = reopened(model, run)
    before = sorted(file.name for file in (run / "index").iterdir())
    again.add_items([500, 501, 502], like=[[2, 4], [7], [8]], category=["War", "Drama", "War"])
    again.remove_items([501, 5])
    again.add_items([7], vectors=3 * model.index_.vectors[[7]].numpy())
    folder = again.save_changes()
    assert folder == run / "index"
    after = sorted(file.name for file in folder.iterdir())
    # The index as it was built lies as it lay.
    assert [name for name in after if not name.startswith("changes-")] == before
    opened = recsys.load(run)
    want = again.recommend(histories=[[1, 2]], k=40, exclude_seen=False)
    got = opened.recommend(histories=[[1, 2]], k=40, exclude_seen=False)
    assert got.equals(want)
    assert {500, 502} <= set(got["item_id"].to_list())
    assert not {501, 5} & set(got["item_id"].to_list())
    wars = opened.recommend(histories=[[1, 2]], k=40, category="War")["item_id"]
    assert {500, 502} <= set(wars)
    assert 500 not in opened.recommend(histories=[[1, 2]], k=40, category="Drama")["item_id"]
    # Further changes build on those that were opened; an item that was removed again leaves no trace.
    opened.remove_items([500])
    opened.add_items([5, 600], like=[[6], [502]])
    opened.save_changes()
    last = recsys.load(run)
    assert last.recommend(histories=[[1]], k=40).equals(opened.recommend(histories=[[1]], k=40))
    answered = set(last.recommend(histories=[[1]], k=40, exclude_seen=False)["item_id"])
    assert answered == (set(range(30)) | {502, 600})
    assert last.save_changes() == run / "index"
    assert not list(tmp_path.glob("run/index/.new*"))


def test_a_saved_copy_of_a_changed_model_has_the_changes(model: Recommender, tmp_path: Path) -> None:
    model.add_items([500], like=[[2]])
    model.remove_items([3])
    opened = reopened(model, tmp_path / "run")
    frame = opened.recommend(histories=[[1]], k=40)
    assert frame.equals(model.recommend(histories=[[1]], k=40))
    # Taking everything back leaves the index as it was built.
    vector = model.index_.vectors[[3]].numpy()
    opened.remove_items([500])
    opened.add_items([3], vectors=vector)
    opened.decoder_.changing().rebuild()
    opened.save_changes()
    assert not list((tmp_path / "run" / "index").glob("changes-*"))
    assert recsys.load(tmp_path / "run").decoder_.live is None


def test_changes_of_two_processes_do_not_overwrite_each_other(model: Recommender, tmp_path: Path) -> None:
    first = reopened(model, tmp_path / "run")
    second = recsys.load(tmp_path / "run")
    first.remove_items([1])
    first.save_changes()
    second.remove_items([2])
    with pytest.raises(RetrievalError, match="another process changed this index"):
        second.save_changes()
    opened = recsys.load(tmp_path / "run")
    assert 1 not in opened.recommend(k=40, exclude_seen=False)["item_id"]


def test_changes_need_a_place_and_a_reason(model: Recommender, folder: Path) -> None:
    with pytest.raises(ArgumentError, match="nothing was added or removed"):
        model.save_changes()
    model.build_index("exact")
    model.remove_items([1])
    with pytest.raises(ArgumentError, match="neither opened nor saved"):
        model.save_changes()


def test_a_new_index_keeps_what_came_and_went(model: Recommender) -> None:
    model.add_items([500], like=[[2]], category=["War"])
    model.remove_items([3])
    before = model.recommend(histories=[[1]], k=40)
    model.build_index("exact")
    assert model.recommend(histories=[[1]], k=40).equals(before)
    with pytest.raises(ArgumentError, match="local vectors cannot follow"):
        model.build_index("exact", vectors="latent", aggregate="local")
    with pytest.warns(UserWarning, match=r"1 added or changed item\(s\) are left out"):
        model.build_index("exact", vectors="latent")
    answered = set(model.recommend(histories=[[1]], k=40)["item_id"])
    assert answered.isdisjoint({3, 500})
    assert len(answered) == 28


def test_a_scoring_knows_a_changed_catalog_and_its_categories(model: Recommender, tmp_path: Path) -> None:
    run = tmp_path / "run"
    opened = reopened(model, run)
    opened.add_items([500], like=[[2]], category=["War"])
    opened.save_changes()
    out = tmp_path / "parts"
    opened.score(out, k=3, category="War", interests=2, part_users=20)
    parts = pl.concat([pl.read_parquet(part) for part in sorted(out.glob("part-*"))])
    assert parts.equals(opened.recommend(k=3, category="War", interests=2))
    assert set(parts["item_id"]) <= {*range(1, 30, 2), 500}
    # Another process goes on with the same catalog, and refuses another.
    assert recsys.load(run).score(out, k=3, category=["War"], interests=2, part_users=20).resumed == 3
    opened.add_items([500], like=[[4]])
    for changed in ({"category": "War", "interests": 2}, {"category": "War"}, {"interests": 2}):
        with pytest.raises(RunError, match="another model, list of users or filter"):
            opened.score(out, k=3, part_users=20, **changed)
    with pytest.raises(UnknownIdError, match="unknown category"):
        opened.score(tmp_path / "none", category="Wat")
    with pytest.raises(ArgumentError, match="interests = 99"):
        opened.score(tmp_path / "none", interests=99)
    assert not (tmp_path / "none").exists()


def test_text_ids_take_text(log: pl.DataFrame) -> None:
    frame = log.select("user_id", pl.format("i{}", "item_id").alias("item_id"), "timestamp")
    options = {"epochs": 1, "batch_events": 512}
    model = Recommender("sasrec", encoder_options=SMALL, training_options=options, index="exact").fit(frame)
    model.add_items(["new"], like=[["i3", "i4"]])
    answers = model.recommend(histories=[["i1"]], k=40)["item_id"].to_list()
    assert "new" in answers
    assert len(answers) == 30


def test_titles_of_added_items_are_answered_and_saved(model: Recommender, tmp_path: Path) -> None:
    model.add_items([100, 101, 3], like=[[1], [2], [4]], title=["A new film", None, "Not film 3"])
    frame = model.recommend(histories=[[1, 2]], k=32, exclude_seen=False)
    titles = dict(zip(frame["item_id"].to_list(), frame["title"].to_list(), strict=True))
    assert titles == {i: f"Film {i}" for i in range(30)} | {100: "A new film", 101: None}
    model.save(tmp_path / "run")
    opened = recsys.load(tmp_path / "run", index="exact")
    opened.add_items([100], like=[[5]])
    again = opened.recommend(histories=[[1, 2]], k=32, exclude_seen=False)
    assert dict(zip(again["item_id"].to_list(), again["title"].to_list(), strict=True)) == titles
    wrongs: list[list[Any]] = [["one"], ["a", "b", 5]]
    for wrong in wrongs:
        with pytest.raises(ArgumentError, match="title"):
            model.add_items([200, 201, 202], like=[[1]] * 3, title=wrong)


def test_a_catalog_without_titles_has_those_of_added_items(log: pl.DataFrame, tmp_path: Path) -> None:
    recsys.prepare(log, tmp_path / "data")
    options = {"epochs": 1, "batch_events": 512}
    model = Recommender("sasrec", encoder_options=SMALL, training_options=options, index="exact")
    model.fit(tmp_path / "data")
    model.add_items([100], like=[[1]])
    assert "title" not in model.recommend(histories=[[1, 2]]).columns
    model.add_items([101], like=[[1]], title=["New"])
    frame = model.recommend(histories=[[1, 2]], k=40)
    titles = dict(zip(frame["item_id"].to_list(), frame["title"].to_list(), strict=True))
    assert {item: title for item, title in titles.items() if title is not None} == {101: "New"}
