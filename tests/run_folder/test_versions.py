"""What earlier versions wrote goes on being read: tests/data/version-N is never made anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import recsys
from recsys import Recommender
from recsys.answering.names import Names
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import MissingDependencyError, RunError
from recsys.files import sha256_of
from recsys.retrieval.faiss_library import load_faiss
from recsys.retrieval.item_index import ItemIndex
from recsys.run_folder import RunFolder, fingerprint
from recsys.run_folder.model import read_manifest
from recsys.run_folder.versions import STEPS, VERSION
from recsys.training.identity import STEPS as CHECKPOINT_STEPS
from recsys.training.identity import VERSION as CHECKPOINT_VERSION

FIRST = Path(__file__).parents[1] / "data" / "version-1"

# What this run answered when it was made.
ANSWERS = {1: [107, 159, 153], 2: [159, 107, 116]}


def test_there_is_a_step_for_every_earlier_version() -> None:
    assert sorted(STEPS) == list(range(1, VERSION))
    assert sorted(CHECKPOINT_STEPS) == list(range(1, CHECKPOINT_VERSION))


def test_a_prepared_dataset_of_version_1_opens() -> None:
    store = SequenceStore.open(FIRST / "prepared", verify=True)
    assert (store.name, store.n_users, store.n_items, store.n_events) == ("forever", 40, 60, 370)
    assert Names(store).titles is not None


def test_a_run_of_version_1_answers_as_it_did() -> None:
    model = recsys.load(FIRST / "run")
    frame = model.recommend(users=list(ANSWERS), k=3)
    assert frame["item_id"].to_list() == [item for items in ANSWERS.values() for item in items]
    assert frame["title"].to_list()[0] == "item 107"
    assert read_manifest(RunFolder(FIRST / "run")).dataset is None


@pytest.mark.parametrize("kind", ["exact", "flat", "ivf", "ivfpq", "hnsw"])
def test_an_index_of_version_1_opens_and_finds_the_best(kind: str) -> None:
    if kind != "exact":
        try:
            load_faiss()
        except MissingDependencyError:
            pytest.skip("no FAISS")
    model = recsys.load(FIRST / "run")
    vectors = model.encoder_.item_vectors().detach()
    index = ItemIndex.load(
        FIRST / "indexes" / kind, fingerprint(model.encoder_), vocabulary=model._names.items.digest()
    )
    assert index.kind == kind
    found = index.search(vectors[:5].numpy(), 60)
    best = (vectors[:5] @ vectors.T).argmax(1)
    assert torch.equal(torch.from_numpy(found.ids[:, 0]), best)


def test_a_checkpoint_of_version_1_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FIRST / "run", run)
    kept = sha256_of(run / "model.safetensors")
    # Its own settings are taken but for what is said.
    model = Recommender(training_options={"epochs": 4}).fit(FIRST / "prepared", out=run, resume=True)
    assert [record["epoch"] for record in model.history_] == [1, 2, 3, 4]
    assert model.encoder_.config.d_model == 8
    state = json.loads((run / "checkpoint" / "state.json").read_text())
    assert (state["format"], state["progress"]["epoch"]) == (CHECKPOINT_VERSION, 4)
    manifest = json.loads((run / "run.json").read_text())
    assert (manifest["format"], manifest["dataset"]) == (VERSION, model.store_.fingerprint)
    assert sha256_of(run / "model.safetensors") == manifest["sha256"] != kept
    # The index was that of the weights before.
    assert not (run / "index").exists()


def test_an_unfinished_run_of_version_1_knows_its_encoder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(FIRST / "run", run)
    (run / "run.json").unlink()
    with pytest.raises(RunError, match=r"another encoder \('sasrec', not 'mamba'\)"):
        Recommender("mamba").fit(FIRST / "prepared", out=run, resume=True)
    model = Recommender(training_options={"epochs": 2}).fit(FIRST / "prepared", out=run, resume=True)
    assert model.recommend(users=[1], k=3)["item_id"].to_list() == ANSWERS[1]


@pytest.mark.parametrize(
    ("file", "what"), [("run.json", "run format"), ("checkpoint/state.json", "checkpoint")]
)
def test_a_version_that_is_not_known_is_refused(tmp_path: Path, file: str, what: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(FIRST / "run", run)
    record = json.loads((run / file).read_text())
    (run / file).write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(RunError, match=f"{what}.* 99 is not known here"):
        Recommender().fit(FIRST / "prepared", out=run, resume=True)
