"""The page of a real model: it shows what the library answers."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from recsys import Recommender
from recsys.serving.http.service import Service
from tests.answering.models import day_log
from tests.serving.doubles import MemoryEvents
from tests.serving.engine.runs import engine_of, saved_run
from tests.serving.page.test_pages import got, ranked


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_run(Path(tmp_path_factory.mktemp("page")) / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Recommender:
    return Recommender.load(run)


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[Service]:
    events = MemoryEvents()
    engine = engine_of(run, events)
    yield Service(engine.settings, engine, events)
    engine.end()


def shown(items: pl.Series, titles: pl.Series) -> list[str]:
    return [
        str(item) if title is None else f"{title} {item}" for item, title in zip(items, titles, strict=True)
    ]


def test_a_user_gets_the_librarys_answers_each_beside_its_nearest(
    service: Service, model: Recommender
) -> None:
    rows = ranked(got(service, "/ui/users/3?k=5").text)
    answers = model.recommend(users=[3], k=5)
    assert [row[1] for row in rows] == shown(answers["item_id"], answers["title"])
    assert [row[2] for row in rows] == [f"{score:.3f}" for score in answers["score"]]
    log, _ = day_log()
    history = log.filter(user_id=3)["item_id"].implode()
    for item, row in zip(answers["item_id"], rows, strict=True):
        near = model.similar_items([item], 19).filter(pl.col("similar_item_id").is_in(history))
        best, cosine, title = near.select("similar_item_id", "score", "title").row(0)
        assert row[3] == f"{cosine:.2f} {title or best}"


def test_an_item_has_its_title_count_categories_and_neighbours(service: Service, model: Recommender) -> None:
    # Leave-one-out: the last two events of each user are held out.
    trained = day_log()[0].sort("timestamp", maintain_order=True)
    trained = trained.filter(pl.int_range(pl.len()).reverse().over("user_id") >= 2)
    for item, title, categories in ((5, "T5", "b, c"), (8, None, "a")):
        text = got(service, f"/ui/items/{item}").text
        near = model.similar_items([item], 20)
        rows = ranked(text)
        assert [row[1] for row in rows] == shown(near["similar_item_id"], near["title"])
        assert [row[2] for row in rows] == [f"{score:.3f}" for score in near["score"]]
        assert f"<h1>{title}</h1>" in text or (title is None and f"</span> {item}</h1>" in text)
        count = trained.filter(item_id=item).height
        assert f"{count} training events · {categories}</p>" in text
