"""A model of items with features as people use it: trained into a folder, loaded, asked, indexed, refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import Recommender, prepare
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.registry import build_encoder, encoder_name
from recsys.errors import ConfigError, DataError, RecsysError
from recsys.run_folder import fingerprint
from recsys.training.item_inputs import item_inputs

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16}
BRIEF: dict[str, Any] = {"epochs": 2, "batch_events": 256}
COLD = [1000, 1001, 1002]


def _items(log: pl.DataFrame) -> tuple[pl.DataFrame, np.ndarray[Any, Any]]:
    ids = [*log["item_id"].unique().sort(), *COLD]
    names = [f"group {number % 5}" for number in range(len(ids))]
    vectors = np.random.default_rng(0).normal(size=(len(ids), 4))
    return pl.DataFrame({"item_id": ids, "title": names, "kind": names}), vectors


def _prepare(log: pl.DataFrame, out: Path, scale: float = 1.0) -> SequenceStore:
    items, vectors = _items(log)
    return prepare(
        log,
        out,
        items=items,
        item_tags="kind",
        item_words="title",
        item_vectors=vectors * scale,
        keep_cold=True,
    )


@pytest.fixture(scope="module", params=["sasrec", "bert4rec", "mamba"])
def run(request: pytest.FixtureRequest, log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("featured"))
    options = {**SMALL, "item_parts": "id+features", "item_id_dropout": 0.3}
    options |= {"d_state": 4} if request.param == "mamba" else {}
    model = Recommender(request.param, encoder_options=options, training_options=BRIEF)
    model.fit(_prepare(log, folder / "data"), out=folder / "run")
    return folder / "run"


def test_a_loaded_model_answers_as_the_trained_one(run: Path) -> None:
    model = Recommender.load(run)
    again = Recommender.load(run)
    for histories in ([[1, 2, 3]], [[1, COLD[0], 3]], [[COLD[1]]]):
        answer = model.recommend(histories=histories, k=5)
        assert answer.equals(again.recommend(histories=histories, k=5))
    # A cold item is read, and says something else than another group's.
    one, other = (model.recommend(histories=[[1, item]], k=33, exclude_seen=False) for item in COLD[:2])
    assert one["score"].to_list() != other["score"].to_list()


def test_cold_items_are_answers_with_an_index_and_without(run: Path) -> None:
    model = Recommender.load(run)
    every = model.recommend(histories=[[1, 2, 3]], k=33, exclude_seen=False)
    assert set(COLD) <= set(every["item_id"].to_list())
    allowed = model.recommend(histories=[[1, 2, 3]], k=3, allow=COLD)
    assert set(allowed["item_id"].to_list()) == set(COLD)
    near = model.similar_items(COLD[:1], k=3)
    assert len(near["item_id"]) == 3
    index = model.build_index("exact")
    found = model.recommend(histories=[[1, 2, 3]], k=33, exclude_seen=False)
    assert index.n_items == 33
    assert found["item_id"].to_list() == every["item_id"].to_list()


def test_an_index_knows_the_features_of_its_model(run: Path, log: pl.DataFrame, tmp_path: Path) -> None:
    model = Recommender.load(run)
    same, other = (
        build_encoder(
            encoder_name(model.encoder_),
            33,
            model.encoder_.config,
            features=item_inputs(_prepare(log, tmp_path / f"data-{scale}", scale)),
        )
        for scale in (1.0, 2.0)
    )
    for encoder in (same, other):
        encoder.load_state_dict(model.encoder_.state_dict())
    assert fingerprint(same) == fingerprint(model.encoder_)
    # The same weights over other vectors are another model.
    assert fingerprint(other) != fingerprint(model.encoder_)


def test_a_saved_model_has_its_features(run: Path, tmp_path: Path) -> None:
    model = Recommender.load(run)
    model.save(tmp_path / "saved")
    saved = Recommender.load(tmp_path / "saved")
    histories = [[1, COLD[0], 3]]
    assert saved.recommend(histories=histories).equals(model.recommend(histories=histories))


def test_features_belong_to_a_run(run: Path, log: pl.DataFrame, tmp_path: Path) -> None:
    for name in ("item_vectors.npy", "tags.parquet"):
        copy = tmp_path / name
        shutil.copytree(run, copy)
        path = copy / "data" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.unlink()
        path.write_bytes(content)
        with pytest.raises(DataError, match=name):
            Recommender.load(copy)
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "data")
    _prepare(log, copy / "data", scale=2.0)
    with pytest.raises(RecsysError, match="is not the data that this run was trained on"):
        Recommender.load(copy)
    # All that lies in a run is known to be its own: it can be replaced.
    model = Recommender("sasrec", encoder_options=SMALL, training_options=BRIEF)
    kept = tmp_path / "again"
    shutil.copytree(run, kept)
    model.fit(_prepare(log, tmp_path / "data"), out=kept, overwrite=True)
    assert Recommender.load(kept).encoder_.config.item_parts == "id"


def test_a_run_goes_on(run: Path, log: pl.DataFrame, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    loaded = Recommender.load(copy)
    options = {
        name: getattr(loaded.encoder_.config, name) for name in ("item_parts", "item_id_dropout", *SMALL)
    }
    options |= {"d_state": 4} if hasattr(loaded.encoder_.config, "d_state") else {}
    kind = type(loaded.encoder_).__name__
    model = Recommender(kind, encoder_options=options, training_options={**BRIEF, "epochs": 3})
    model.fit(_prepare(log, tmp_path / "data"), out=copy, resume=True)
    assert len(model.history_) == 3
    assert Recommender.load(copy).encoder_.config.item_parts == "id+features"


def test_a_log_without_features_is_refused(log: pl.DataFrame, tmp_path: Path) -> None:
    model = Recommender(encoder_options={**SMALL, "item_parts": "features"}, training_options=BRIEF)
    with pytest.raises(ConfigError, match="needs features of items and the data have none"):
        model.fit(log, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
