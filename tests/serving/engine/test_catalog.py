"""Items come and go while a run is served: in every worker, over restarts, and never half."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, UnknownIdError
from recsys.serving.engine.asking import Ask, CatalogError, ItemInfo, NewItem
from recsys.serving.engine.catalog import adding
from recsys.serving.engine.engine import ServingEngine
from tests.answering.models import day_log, random_model
from tests.serving.engine.runs import engine_of, saved_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a saved index and its data."""
    run = saved_run(Path(tmp_path_factory.mktemp("catalog")) / "run")
    model = Recommender.load(run)
    model.save_index(run / "index")
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it that may change."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def engine(run: Path) -> Iterator[ServingEngine]:
    engine = engine_of(run)
    yield engine
    engine.end()


def _items(engine: ServingEngine, user: int = 3, **asked: Any) -> list[Any]:
    found = asyncio.run(engine.recommend(Ask(user=user, k=30, exclude_seen=False, **asked)))
    return [item.id for item in found.items]


def _followed(engine: ServingEngine) -> bool:
    return engine._models.changing.submit(engine._models.follow).result(60)


def test_an_item_is_answered_as_the_library_answers_it(engine: ServingEngine, run: Path) -> None:
    (before,) = engine.models()
    first = asyncio.run(engine.recommend(Ask(user=3)))
    best = first.items[0].id
    info = asyncio.run(engine.put_item(5000, NewItem(like=[best])))
    assert (info.n_items, info.version != before.version) == (before.n_items + 1, True)
    found = asyncio.run(engine.recommend(Ask(user=3)))
    assert (found.version, found.cached) == (info.version, False)
    # It has the vector of the best item, and so its score.
    assert {item.id for item in found.items[:2]} == {best, 5000}
    assert found.items[0].score == found.items[1].score == first.items[0].score
    alone = Recommender.load(run).recommend([3], k=10)
    assert [item.id for item in found.items] == alone["item_id"].to_list()
    assert [item.score for item in found.items] == alone["score"].to_list()
    assert asyncio.run(engine.item(5000)) == ItemInfo(5000, None, (), 0, answerable=True)


def test_what_went_is_answered_no_more_and_comes_back(engine: ServingEngine) -> None:
    everything = _items(engine)
    # Also the first of the catalog, by which models are warmed up.
    for item in sorted(everything)[:2]:
        asyncio.run(engine.remove_item(item))
        assert not asyncio.run(engine.item(item)).answerable
    assert set(_items(engine)) == set(sorted(everything)[2:])
    with pytest.raises(UnknownIdError, match="not in the catalog"):
        asyncio.run(engine.remove_item(sorted(everything)[0]))
    asyncio.run(engine.put_item(sorted(everything)[0], NewItem(like=[sorted(everything)[-1]])))
    assert set(_items(engine)) == set(sorted(everything)[2:]) | {sorted(everything)[0]}


def test_a_new_item_is_found_under_its_category(engine: ServingEngine) -> None:
    category = engine.models()[0].categories[0]
    members = _items(engine, category=[category])
    asyncio.run(engine.put_item(5000, NewItem(category=category)))
    assert set(_items(engine, category=[category])) == {*members, 5000}
    assert asyncio.run(engine.item(5000)).categories == (category,)


def test_a_restart_finds_the_items_and_the_same_version(engine: ServingEngine, run: Path) -> None:
    info = asyncio.run(engine.put_item(5000, NewItem(vector=[0.5] * engine.models()[0].width)))
    again = engine_of(run)
    try:
        assert (again.models()[0].version, again.models()[0].n_items) == (info.version, info.n_items)
        assert _items(again) == _items(engine)
    finally:
        again.end()


def test_a_title_stands_in_answers_after_a_restart_and_a_new_vector(engine: ServingEngine, run: Path) -> None:
    asyncio.run(engine.put_item(5000, NewItem(like=[7], title="A <new> one")))
    asyncio.run(engine.put_item(5000, NewItem(like=[8])))
    asyncio.run(engine.put_item(5001, NewItem(like=[8])))
    assert asyncio.run(engine.title([5000, 5001, 6000])) == ["A <new> one", None, None]
    again = engine_of(run)
    try:
        found = asyncio.run(again.recommend(Ask(user=3, k=30, exclude_seen=False)))
    finally:
        again.end()
    titles = {item.id: item.title for item in found.items}
    assert (titles[5000], titles[5001]) == ("A <new> one", None)
    # Some items of the log have none; those that have one keep it.
    alone = Recommender.load(run).recommend([3], k=30, exclude_seen=False)
    assert titles == dict(zip(alone["item_id"].to_list(), alone["title"].to_list(), strict=True))
    assert titles[7] == asyncio.run(engine.title([7]))[0] is not None


def test_a_run_without_a_saved_index_gets_one(run: Path) -> None:
    shutil.rmtree(run / "index")
    engine = engine_of(run)
    try:
        info = asyncio.run(engine.put_item(5000, NewItem(like=[7])))
    finally:
        engine.end()
    assert 5000 in Recommender.load(run).recommend([3], k=30)["item_id"].to_list()
    assert info.n_items == 21


@pytest.mark.parametrize(
    ("item", "new", "why"),
    [
        (5000, NewItem(like=[7, 6000]), "like: item 6000 is not in the catalog"),
        (5000, NewItem(vector=[1.0, 2.0]), "vector: 2 numbers; the index's vectors have"),
        (5000, NewItem(category="none such"), "category: unknown category"),
        (5000, NewItem(), "pass vectors="),
    ],
)
def test_what_does_not_fit_changes_nothing(engine: ServingEngine, item: int, new: NewItem, why: str) -> None:
    before = engine.models()
    with pytest.raises(ArgumentError, match=why):
        asyncio.run(engine.put_item(item, new))
    assert engine.models() == before
    assert 5000 not in _items(engine)


def test_a_folder_of_another_model_is_refused(engine: ServingEngine, run: Path, tmp_path: Path) -> None:
    other = saved_run(tmp_path / "other", d_model=8)
    shutil.rmtree(run)
    shutil.copytree(other, run)
    with pytest.raises(CatalogError, match="holds another model than the one in service; load it first"):
        asyncio.run(engine.put_item(5000, NewItem(like=[7])))
    shutil.rmtree(run)
    with pytest.raises(CatalogError, match="the catalog cannot be changed"):
        asyncio.run(engine.remove_item(7))
    assert len(_items(engine)) == 20


def test_workers_follow_and_lose_none_of_each_others_items(run: Path, tmp_path: Path) -> None:
    workers = [engine_of(run, folder=tmp_path) for _ in range(2)]
    failed: list[Exception] = []

    def put(worker: ServingEngine, first: int) -> None:
        try:
            for item in range(first, first + 4):
                asyncio.run(worker.put_item(item, NewItem(like=[item % 20])))
        except Exception as error:
            failed.append(error)

    try:
        threads = [
            threading.Thread(target=put, args=(worker, 5000 + 100 * place))
            for place, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        added = {5000, 5001, 5002, 5003, 5100, 5101, 5102, 5103}
        versions = set()
        for worker in workers:
            assert _followed(worker)
            versions.add(worker.models()[0].version)
            assert added < set(_items(worker))
        assert len(versions) == 1
    finally:
        for worker in workers:
            worker.end()


def test_a_rollback_goes_to_the_model_before_not_to_the_catalog_before(
    run: Path, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made, tmp_path / "next")
    folder = tmp_path / "state"
    folder.mkdir()
    workers = [engine_of(run, folder=folder, models_dir=str(tmp_path)) for _ in range(2)]
    try:
        first, second = workers
        asyncio.run(first.load_model("default", "next"))
        assert _followed(second)
        asyncio.run(first.put_item(5000, NewItem(like=[7])))
        assert _followed(second)
        for worker in workers:
            assert 5000 in _items(worker)
        assert asyncio.run(second.roll_back("default")).path == str(run)
        assert 5000 not in _items(second)
    finally:
        for worker in workers:
            worker.end()


def test_a_run_of_two_names_has_one_catalog(run: Path) -> None:
    engine = engine_of(run, models=(("a", str(run), 1.0), ("b", str(run), 1.0)))
    try:
        asyncio.run(engine.put_item(5000, NewItem(like=[7]), "b"))
        assert [info.n_items for info in engine.models()] == [21, 21]
        assert 5000 in _items(engine, model="a")
    finally:
        engine.end()


FEATURES: dict[str, Any] = {"kind": ["a"], "title": "film about night", "vector": [0.5, -1.0, 2.0]}


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved run of items with features, of which 100 has `FEATURES` and no event."""
    folder = Path(tmp_path_factory.mktemp("featured"))
    numbers = [*range(20), 100]
    items = {
        "item_id": numbers,
        "kind": [["a", "b"][: 1 + n % 2] for n in numbers],
        "title": ["film about night" if n == 100 else f"film {n} of night" for n in numbers],
        "emb": [[0.5, -1.0, 2.0] if n == 100 else [n % 3 + 0.5, 1.0, n % 4] for n in numbers],
    }
    options: dict[str, Any] = {"item_tags": "kind", "item_words": "title", "item_vectors": "emb"}
    recsys.prepare(day_log()[0], folder / "data", items=items, keep_cold=True, time_unit="s", **options)
    random_model("sasrec", folder / "data", item_parts="id+features").save(folder / "run")
    return folder / "run"


def test_an_item_with_features_is_read_in_histories(featured: Path, tmp_path: Path) -> None:
    shutil.copytree(featured, tmp_path / "run")
    engine = engine_of(tmp_path / "run")
    try:
        for features in ({**FEATURES, "vector": [9.0, 9.0, 9.0]}, FEATURES):  # put again, it is another
            asyncio.run(engine.put_item(5000, NewItem(features=features, title="Night")))

        def found(engine: ServingEngine, item: int) -> list[tuple[Any, float]]:
            asked = Ask(history=[1, item], k=22, deny=[100, 5000])
            answer = asyncio.run(engine.recommend(asked))
            assert answer.history.unknown == ()
            return [(own.id, own.score) for own in answer.items]

        assert found(engine, 5000) == found(engine, 100)
        near = asyncio.run(engine.nearest([5000, 100, 9999], [3, 5000]))
        assert [own if own is None else own[0] for own in near] == [5000, 5000, None]
        best = {own.id: own.score for own in asyncio.run(engine.recommend(Ask(history=[1], k=22))).items}
        assert best[5000] == best[100]
        again = engine_of(tmp_path / "run")
        assert found(again, 5000) == found(engine, 5000)
        again.end()
        asyncio.run(engine.remove_item(5000))
        assert found(engine, 5000) == found(engine, 100)
    finally:
        engine.end()


@pytest.mark.parametrize(
    ("item", "features", "words"),
    [
        (5000, {"kind": ["a", "zz"]}, r"^features: item 5000 bears 'zz' in column 'kind'[^=]*$"),
        (5000, {"brand": "x"}, "^features: the model was trained without 'brand'; it knows kind, title$"),
        (5000, {"vector": [1.0]}, "^features: vectors have 1 numbers, those of the run's items 3"),
        (5000, {"title": "zebra"}, "^features: nothing that the run knows is said of item 5000"),
        (5000, {"emb": [1e9, 0.0, 0.0]}, "^features: column 'emb' has 1e"),
        (7, {"kind": "a"}, "^features: item 7 is in the catalog already"),
    ],
)
def test_features_that_do_not_fit_are_refused(
    item: int, features: dict[str, Any], words: str, featured: Path
) -> None:
    model = Recommender.load(featured)
    with pytest.raises(ArgumentError, match=words):
        adding(item, NewItem(features=features))(model)


def test_a_model_without_features_says_so(run: Path) -> None:
    with pytest.raises(
        ArgumentError, match="^features: this model knows items by their ids alone: send like"
    ):
        adding(5000, NewItem(features={"kind": "a"}))(Recommender.load(run))
