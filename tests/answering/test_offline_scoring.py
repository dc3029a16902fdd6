import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys import Recommender
from recsys.answering.answers import answer
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ArgumentError, RunError, UnknownIdError

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}


@pytest.fixture(scope="module")
def model(store: SequenceStore) -> Recommender:
    options = {"epochs": 1, "batch_events": 256}
    return Recommender("sasrec", encoder_options=SMALL, training_options=options, index="exact").fit(store)


def read(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(part) for part in sorted(folder.glob("part-*.parquet"))])


def test_parts_hold_what_recommend_answers(model: Recommender, tmp_path: Path) -> None:
    report = model.score(tmp_path / "parts", k=4, part_users=17)
    assert (report.users, report.resumed, len(report.parts)) == (60, 0, 4)
    assert read(tmp_path / "parts").equals(model.recommend(k=4))
    done = json.loads((tmp_path / "parts" / "_SUCCESS").read_text())
    assert done["rows"] == report.rows == len(model.recommend(k=4))
    assert list(done["sha256"]) == report.parts


def test_a_scoring_cut_short_goes_on_where_it_stopped(
    model: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def stop_at_third(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr("recsys.answering.offline_scoring.answer", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        model.score(tmp_path / "parts", k=4, part_users=17)
    assert not (tmp_path / "parts" / "_SUCCESS").exists()
    assert len(list((tmp_path / "parts").glob("part-*"))) == 2
    whole = next(iter(sorted((tmp_path / "parts").glob("part-*"))))
    whole.write_bytes(whole.read_bytes()[:-9])  # a copy that broke off
    report = model.score(tmp_path / "parts", k=4, part_users=17)
    assert report.resumed == 1
    assert calls == 6
    assert read(tmp_path / "parts").equals(model.recommend(k=4))


def test_some_users_under_filters(model: Recommender, tmp_path: Path) -> None:
    model.score(tmp_path / "parts", [7, 3], k=5, deny=[1, 2], exclude_seen=False)
    want = model.recommend(users=[7, 3], k=5, deny=[1, 2], exclude_seen=False)
    assert read(tmp_path / "parts").equals(want)


def test_parts_of_another_scoring_are_not_mixed_in(model: Recommender, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    model.score(out, k=4)
    changes: list[dict[str, Any]] = [
        {"k": 5},
        {"deny": [1]},
        {"users": [3]},
        {"exclude_seen": False},
        {"part_users": 30},
    ]
    for change in changes:
        with pytest.raises(RunError, match="another model, list of users or filter"):
            model.score(out, **{"k": 4, **change})
    report = model.score(out, k=5, overwrite=True)
    assert report.rows == len(model.recommend(k=5))
    assert len(list(out.iterdir())) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="not a scoring"):
        model.score(tmp_path / "mine", overwrite=True)


def test_a_bad_call_is_refused(model: Recommender, tmp_path: Path) -> None:
    with pytest.raises(UnknownIdError, match="user 999"):
        model.score(tmp_path / "a", [999])
    with pytest.raises(ArgumentError, match="twice"):
        model.score(tmp_path / "a", [3, 3])
    for change in ({"part_users": 0}, {"k": 0}):
        with pytest.raises(ArgumentError, match="must be at least 1"):
            model.score(tmp_path / "a", **change)  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()
