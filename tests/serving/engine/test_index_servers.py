"""A service whose index lies on a server that goes and comes back."""

import asyncio
from pathlib import Path

import pytest

from recsys import Recommender
from recsys.errors import IndexServerError
from recsys.retrieval import planner
from recsys.serving.engine.asking import Ask
from tests.serving.engine.runs import engine_of, saved_run

pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")


def test_requests_are_refused_in_words_while_it_is_away_and_answered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.retrieval.qdrant_stand_in import StandIn

    # Twenty items are scanned by the service itself otherwise.
    monkeypatch.setattr(planner, "_worthwhile", lambda filters, engine: filters.n_items)
    run, own = saved_run(tmp_path / "run"), StandIn()
    with own.serving() as url:
        model = Recommender.load(run)
        wanted = model.recommend(users=[3, 4], k=5, exclude_seen=False)["item_id"].to_list()
        model.build_index("qdrant", options={"url": url, "collection": "items"})
        model.save_index(run / "index")
        engine = engine_of(run)

    def ask(user: int) -> list[object]:
        asked = Ask(user=user, k=5, exclude_seen=False)
        return [item.id for item in asyncio.run(engine.recommend(asked)).items]

    try:
        for user in (3, 4):
            with pytest.raises(IndexServerError, match=f"{url}: the index server cannot be reached"):
                ask(user)
        with own.serving(int(url.rpartition(":")[2])):
            before = len(own.seen)
            assert ask(3) + ask(4) == wanted
            assert own.seen[before:] == [own.seen[-1]] * 2
            assert own.seen[-1].endswith("/points/query/batch")
    finally:
        engine.end()
