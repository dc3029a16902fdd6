"""Models change under load: no request fails, what is refused changes nothing, and workers follow."""

import asyncio
import gc
import itertools
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recsys
from recsys import Recommender
from recsys.errors import ArgumentError, UnknownIdError
from recsys.events.store import Event
from recsys.serving.engine.asking import Answered, Ask
from recsys.serving.engine.engine import ServingEngine
from recsys.serving.engine.observing import Silent
from tests.answering.models import day_log, random_model
from tests.serving.doubles import MemoryEvents
from tests.serving.engine.runs import engine_of, saved_run


class Told(Silent):
    """Loads that an observer was told of."""

    def __init__(self) -> None:
        self.loads: list[tuple[str, str]] = []

    def loaded(self, name: str, version: str, result: str) -> None:
        self.loads.append((name, result))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs of a log, one of another kind of ids, and one outside."""
    top = Path(tmp_path_factory.mktemp("swapping"))
    folder = top / "models"
    folder.mkdir()
    saved_run(folder / "monday")
    saved_run(folder / "tuesday", d_model=8)
    log, _ = day_log()
    columns = {
        "user_id": "u" + pl.col("user_id").cast(pl.String),
        "item_id": "i" + pl.col("item_id").cast(pl.String),
    }
    recsys.prepare(log.with_columns(**columns), top / "text-data", time_zone="-05:00")
    random_model("sasrec", top / "text-data").save(folder / "text")
    shutil.copytree(folder / "monday", top / "outside")
    return folder


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def engine(runs: Path, told: Told) -> Iterator[ServingEngine]:
    made = engine_of(runs / "monday", MemoryEvents(), told, models_dir=str(runs))
    yield made
    made.end()


def _alone(run: Path, user: int) -> list[Any]:
    model = Recommender.load(run)
    return model.recommend([user], k=5)["item_id"].to_list()


def test_a_load_takes_the_place_and_a_rollback_gives_it_back(
    engine: ServingEngine, runs: Path, told: Told
) -> None:
    async def swap() -> None:
        monday = await engine.recommend(Ask(user=3, k=5))
        info = await engine.load_model("default", "tuesday")
        tuesday = await engine.recommend(Ask(user=3, k=5))
        assert (info.version, info.width, info.weight) == (tuesday.version, 8, 1.0)
        assert info.path == str(runs / "tuesday")
        assert tuesday.version != monday.version
        assert [item.id for item in monday.items] == _alone(runs / "monday", 3)
        assert [item.id for item in tuesday.items] == _alone(runs / "tuesday", 3)
        assert (await engine.roll_back("default")).version == monday.version
        again = await engine.recommend(Ask(user=3, k=5))
        assert (again.items, again.cached) == (monday.items, True)
        assert (await engine.roll_back("default")).version == tuesday.version

    asyncio.run(swap())
    assert told.loads == [
        ("default", "ok"),
        ("default", "ok"),
        ("default", "rolled_back"),
        ("default", "rolled_back"),
    ]


def test_twenty_swaps_under_load_lose_no_request(engine: ServingEngine) -> None:
    users = itertools.cycle(range(40))
    versions: list[str] = []

    async def client(end: asyncio.Event) -> list[str]:
        seen = []
        while not end.is_set():
            found = await engine.recommend(Ask(user=next(users), k=5, exclude_seen=False))
            assert len(found.items) == 5
            seen.append(found.version)
        return seen

    async def swap() -> list[list[str]]:
        end = asyncio.Event()
        clients = [asyncio.create_task(client(end)) for _ in range(8)]
        for path in ["tuesday", "monday"] * 10:
            versions.append((await engine.load_model("default", path)).version)
            last = await engine.recommend(Ask(user=1))
            assert last.version == versions[-1]
        end.set()
        return await asyncio.gather(*clients)

    seen = asyncio.run(swap())
    assert len(set(versions)) == 2
    assert set(itertools.chain(*seen)) == set(versions)
    # A client sees the models in the order of the swaps: never one again between two changes.
    for own in seen:
        changes = [version for version, _ in itertools.groupby(own)]
        assert len(changes) <= 21
        assert len(own) > 20


def test_what_cannot_be_loaded_changes_nothing(
    engine: ServingEngine, runs: Path, tmp_path: Path, told: Told
) -> None:
    (before,) = engine.models()
    corrupt = runs / "corrupt"
    shutil.copytree(runs / "monday", corrupt, dirs_exist_ok=True)
    weights = corrupt / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-5] ^= 1
    weights.write_bytes(raw)
    leading = runs / "leading"
    shutil.copytree(runs / "monday", leading, dirs_exist_ok=True)
    (leading / "report.json").unlink(missing_ok=True)
    (leading / "report.json").symlink_to("/etc/hostname")
    (runs / "link").unlink(missing_ok=True)
    (runs / "link").symlink_to(runs.parent / "outside")
    refused = {
        "corrupt": "model.safetensors",
        "nothing": "not a run folder under",
        "../outside": "not a run folder under",
        str(runs.parent / "outside"): "not a run folder under",
        "/etc": "not a run folder under",
        "link": "not a run folder under",
        ".": "not a run folder under",
        "monday/run.json": "not a run folder under",
        "a\0b": "not a run folder under",
        "a" * 5000: "not a run folder under",
        "leading": "a link in the run folder leads out",
        "text": "users are text there, and whole numbers in service",
        "monday/index": "not a run folder",
    }
    for path, why in refused.items():
        with pytest.raises(ArgumentError, match=why):
            asyncio.run(engine.load_model("default", path))
    for share in ({"weight": -1.0}, {"shadow": 101.0}, {"weight": float("nan")}):
        with pytest.raises(ArgumentError, match="must be a number from 0"):
            asyncio.run(engine.load_model("default", "tuesday", **share))
    assert engine.models() == (before,)
    assert told.loads == [("default", "ok"), *[("default", "refused")] * len(refused)]
    with pytest.raises(ArgumentError, match="nothing to go back to"):
        asyncio.run(engine.roll_back("default"))
    with pytest.raises(UnknownIdError, match="not in service"):
        asyncio.run(engine.roll_back("other"))


def test_nothing_is_loaded_without_a_folder_of_models(runs: Path) -> None:
    engine = engine_of(runs / "monday")
    try:
        with pytest.raises(ArgumentError, match="--models DIR"):
            asyncio.run(engine.load_model("default", str(runs / "tuesday")))
    finally:
        engine.end()


def test_a_run_that_was_deleted_is_served_to_the_end(engine: ServingEngine, runs: Path) -> None:
    shutil.copytree(runs / "tuesday", runs / "deleted", dirs_exist_ok=True)
    asyncio.run(engine.load_model("default", "deleted"))
    before = asyncio.run(engine.recommend(Ask(user=3, k=5)))
    shutil.rmtree(runs / "deleted")
    assert asyncio.run(engine.recommend(Ask(user=3, k=5))).items == before.items
    assert asyncio.run(engine.history(7))
    with pytest.raises(ArgumentError):
        asyncio.run(engine.load_model("default", "deleted"))
    assert asyncio.run(engine.recommend(Ask(user=5, k=5))).version == before.version


def test_a_new_name_answers_those_who_name_it_until_it_has_a_share(engine: ServingEngine) -> None:
    async def ask() -> None:
        await engine.load_model("b", "tuesday")
        named = await engine.recommend(Ask(user=3, model="b"))
        assert named.model == "b"
        found = await engine.recommend_many([Ask(user=user) for user in range(40)])
        assert {own.model for own in found if isinstance(own, Answered)} == {"default"}
        info = await engine.load_model("b", "tuesday", weight=1.0)
        assert info.weight == 1.0
        shared = await engine.recommend_many([Ask(user=user) for user in range(40)])
        models = [own.model for own in shared if isinstance(own, Answered)]
        assert 8 < models.count("b") < 32
        again = await engine.recommend_many([Ask(user=str(user)) for user in range(40)])
        assert [own.model for own in again if isinstance(own, Answered)] == models

    asyncio.run(ask())


def test_the_last_requests_warm_a_model_up(engine: ServingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[Any] = []
    monkeypatch.setattr(
        "recsys.serving.engine.swapping.warm_up", lambda served, real=(), notify=None: warmed.extend(real)
    )
    events = engine._events
    assert events is not None
    events.append([Event(3, 7, 2_000_000_000)])
    for user in range(150):
        asyncio.run(engine.recommend(Ask(user=user % 40, k=3)))
    asyncio.run(engine.load_model("default", "tuesday"))
    assert [request.user for request in warmed] == [user % 40 for user in range(50, 150)]
    assert {request.since for request in warmed if request.user == 3} == {((7, 2_000_000_000),)}


def test_workers_follow_each_other(runs: Path, tmp_path: Path) -> None:
    settings = {"models_dir": str(runs)}
    workers = [engine_of(runs / "monday", folder=tmp_path, **settings) for _ in range(2)]
    try:
        first, second = workers
        old = first.models()[0].version
        new = asyncio.run(first.load_model("default", "tuesday")).version
        asyncio.run(second.load_model("b", "monday", weight=2.0))
        for worker in workers:
            assert worker._models.changing.submit(worker._models.follow).result(60)
            assert [(own.name, own.version, own.weight) for own in worker.models()] == [
                ("default", new, 1.0),
                ("b", old, 2.0),
            ]
        asyncio.run(second.roll_back("default"))
        assert first._models.changing.submit(first._models.follow).result(60)
        assert first.models()[0].version == old
        # One that starts later begins where the others are.
        late = engine_of(runs / "tuesday", folder=tmp_path, **settings)
        workers.append(late)
        assert [(own.name, own.version) for own in late.models()] == [("default", old), ("b", old)]
    finally:
        for worker in workers:
            worker.end()


def test_a_model_is_unloaded_by_all_but_the_default(runs: Path, tmp_path: Path, told: Told) -> None:
    settings: Any = {"models_dir": str(runs), "models": (("a", str(runs / "monday"), 1.0),)}
    workers = [engine_of(runs / "monday", None, told, folder=tmp_path, **settings) for _ in range(2)]
    try:
        first, second = workers
        asyncio.run(first.load_model("tuesday", None, weight=1.0))
        second._models.changing.submit(second._models.follow).result(60)
        both = asyncio.run(second.recommend_many([Ask(user=user) for user in range(20)]))
        assert {own.model for own in both if isinstance(own, Answered)} == {"a", "tuesday"}
        asyncio.run(second.unload_model("tuesday"))
        first._models.changing.submit(first._models.follow).result(60)
        for worker in workers:
            assert [own.name for own in worker.models()] == ["a"]
            alone = asyncio.run(worker.recommend_many([Ask(user=user) for user in range(20)]))
            assert {own.model for own in alone if isinstance(own, Answered)} == {"a"}
            with pytest.raises(UnknownIdError, match="'tuesday' is not in service"):
                asyncio.run(worker.unload_model("tuesday"))
            with pytest.raises(ArgumentError, match="'a' is the default"):
                asyncio.run(worker.unload_model("a"))
        assert told.loads.count(("tuesday", "unloaded")) == 2
    finally:
        for worker in workers:
            worker.end()


def test_a_run_that_was_trained_anew_in_its_folder_is_loaded_again(runs: Path, tmp_path: Path) -> None:
    """Also one that the command line named, where no folder of models is given."""
    shutil.copytree(runs / "monday", tmp_path / "run")
    engine = engine_of(tmp_path / "run")
    try:
        old = engine.models()[0].version
        assert asyncio.run(engine.load_model("default", None)).version == old
        shutil.rmtree(tmp_path / "run")
        shutil.copytree(runs / "tuesday", tmp_path / "run")
        assert asyncio.run(engine.recommend(Ask(user=3))).version == old
        new = asyncio.run(engine.load_model("default", None)).version
        assert asyncio.run(engine.recommend(Ask(user=3))).version == new != old
        with pytest.raises(ArgumentError, match="--models DIR"):
            asyncio.run(engine.load_model("tuesday", None))
    finally:
        engine.end()


def test_a_worker_that_cannot_follow_goes_on(runs: Path, tmp_path: Path, told: Told) -> None:
    shutil.copytree(runs / "tuesday", runs / "passing", dirs_exist_ok=True)
    settings = {"models_dir": str(runs)}
    workers = [engine_of(runs / "monday", None, told, folder=tmp_path, **settings) for _ in range(2)]
    try:
        first, second = workers
        second._models.end()  # looks only when it is told to
        old = second.models()[0].version
        asyncio.run(first.load_model("default", "passing"))
        shutil.rmtree(runs / "passing")
        assert not second._models.follow()
        assert second.models()[0].version == old
        assert asyncio.run(second.recommend(Ask(user=3))).version == old
        assert told.loads[-1] == ("default", "refused")
        asyncio.run(first.load_model("default", "tuesday"))
        assert second._models.follow()
        assert second.models()[0].version == first.models()[0].version
    finally:
        for worker in workers:
            worker.end()


def test_a_shadow_is_asked_beside_and_its_answers_are_not_sent(runs: Path) -> None:
    class Shadowed(Told):
        def __init__(self) -> None:
            super().__init__()
            self.shares: list[tuple[str, int, float]] = []

        def shadowed(self, name: str, k: int, overlap: float) -> None:
            self.shares.append((name, k, overlap))

    told = Shadowed()
    engine = engine_of(
        runs / "monday", MemoryEvents(), told, shadows=(("next", str(runs / "tuesday"), 50.0),)
    )

    async def ask() -> None:
        for user in range(40):
            found = await engine.recommend(Ask(user=user, k=5))
            assert found.model == "default"
        while engine._beside:
            await asyncio.wait(list(engine._beside))
        both = [await engine.recommend(Ask(user=3, k=5, model=name)) for name in (None, "next")]
        assert [own.model for own in both] == ["default", "next"]

    try:
        asyncio.run(ask())
    finally:
        engine.end()
    assert 8 < len(told.shares) < 33
    assert {(name, k) for name, k, _ in told.shares} == {("next", 5)}
    assert 0 < sum(overlap for _, _, overlap in told.shares) < len(told.shares)


def test_a_model_that_is_let_go_is_gone_at_once(engine: ServingEngine) -> None:
    """A worker never looks for cycles among what it has loaded first."""

    async def load(*paths: str) -> None:
        for path in paths:
            await engine.load_model("default", path)
            await engine.recommend(Ask(user=3, k=5))

    first = weakref.ref(engine._served(None).model)
    gc.collect()
    gc.disable()
    try:
        asyncio.run(load("tuesday", "monday"))
        engine.tell_searches()
        left = first()
    finally:
        gc.enable()
    assert left is None
