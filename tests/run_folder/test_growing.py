"""Runs that go on with other data: what known items keep, what new ones start from, and what is refused."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import recsys
from recsys import Recommender
from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.prepared.vocabulary import item_vocabulary
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.registry import build_encoder
from recsys.errors import RunError
from recsys.jagged import SequenceBatch
from recsys.run_folder import RunFolder
from recsys.run_folder.parents import Parent, Succession, read_parent
from recsys.training import losses
from recsys.training.averaging import UPDATES
from recsys.training.callbacks import Callback
from recsys.training.item_inputs import item_inputs
from recsys.training.neighbours import neighbour_bags
from recsys.training.trainer import Trainer
from tests.conftest import random_log

SIZES: dict[str, Any] = {"d_model": 16, "n_layers": 1, "max_length": 12}
TRAINING: dict[str, Any] = {"epochs": 2, "batch_events": 128, "warmup_steps": 2, "ema_decay": 0.9}
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("sasrec", {"repeat_bias": 2}, {}),
    "mask row": ("bert4rec", {}, {}),
    "mamba": ("mamba", {"d_state": 4, "repeat_bias": 0}, {"loss": "gbce", "label_smoothing": 0.0}),
    "untied": ("sasrec", {"tie_items": False}, {}),
    "sampled": ("sasrec", {"repeat_bias": 0}, {"loss": "sampled_softmax", "negatives": 4}),
    "hashed": ("bert4rec", {"item_hashes": 2, "item_buckets": 17}, {}),
    "hashed, sampled": (
        "sasrec",
        {"item_hashes": 2, "item_buckets": 17, "repeat_bias": 0},
        {"loss": "sampled_softmax", "negatives": 4},
    ),
    "features": ("sasrec", {"item_parts": "id+features", "item_id_dropout": 0.3}, {}),
    "features alone": ("bert4rec", {"item_parts": "features", "item_projection": "mlp"}, {}),
    "features, untied": ("mamba", {"item_parts": "id+features", "tie_items": False, "d_state": 4}, {}),
    "features, hashed": (
        "sasrec",
        {"item_parts": "id+features", "item_hashes": 2, "item_buckets": 17, "repeat_bias": 0},
        {"loss": "sampled_softmax", "negatives": 4},
    ),
}
"""Encoder, its options and those of training, by what is to be seen."""


def _items(ids: list[str], seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Tags and vectors that are an item's own whatever the catalog, and a tag that only this log has."""
    kinds = [[f"k{sum(map(ord, name)) % 4}"] for name in ids]
    kinds[0].append(f"only in {seed}")
    vectors = [np.random.default_rng(sum(map(ord, name))).normal(size=5) for name in ids]
    return pl.DataFrame({"item_id": ids, "kind": kinds}), np.array(vectors)


def _log(first: int, last: int, *, seed: int) -> pl.DataFrame:
    """A walk over the items first to last; ids are text, so that i100 stands before i80."""
    log = random_log(users=40, items=last - first, seed=seed, longest=20)
    return log.with_columns(
        pl.format("i{}", pl.col("item_id") + first), (pl.col("user_id") + first).alias("user_id")
    )


def _prepared(log: pl.DataFrame, out: Path, seed: int, *, features: bool) -> SequenceStore:
    if not features:
        return prepare(log, out)
    items, vectors = _items(log["item_id"].unique().sort().to_list(), seed)
    return prepare(log, out, items=items, item_tags="kind", item_vectors=vectors)


BEFORE, AFTER = _log(80, 104, seed=1), _log(84, 112, seed=2)
"""i80 to i83 are gone, i84 to i103 known, i104 to i111 new, and the order of text ids is another."""


class Grown:
    """A parent, and a trainer of another log that has taken it over."""

    def __init__(self, kind: str, folder: Path) -> None:
        name, encoder, training = KINDS[kind]
        features = "item_parts" in encoder
        self.before = _prepared(BEFORE, folder / "before", 1, features=features)
        self.after = _prepared(AFTER, folder / "after", 2, features=features)
        model = Recommender(
            name, encoder_options={**SIZES, **encoder}, training_options={**TRAINING, **training}
        )
        self.encoder: SequenceEncoder = model.fit(self.before, out=folder / "run").encoder_
        self.run = folder / "run"
        self.parent: Parent = read_parent(self.run)
        self.succession = Succession.of(self.parent, self.after, "after")
        settings = self.parent.settings
        self.trainer = Trainer(
            build_encoder(
                name, self.after.n_items, settings.encoder, seed=5, features=item_inputs(self.after)
            ),
            self.after,
            settings.training,
        )
        self.drawn = {n: v.clone() for n, v in self.trainer.tensors().items()}
        self.line = self.succession.hand_over(self.trainer)
        ids = {s: item_vocabulary(s).ids.to_list() for s in (self.before, self.after)}
        there = {name: place for place, name in enumerate(ids[self.before])}
        self.known = [(place, there[n]) for place, n in enumerate(ids[self.after]) if n in there]
        self.new = [place for place, name in enumerate(ids[self.after]) if name not in there]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Grown]:
    return _Lazily(tmp_path_factory)


class _Lazily(dict[str, Grown]):
    def __init__(self, folders: pytest.TempPathFactory) -> None:
        super().__init__()
        self.folders = folders

    def __missing__(self, kind: str) -> Grown:
        self[kind] = Grown(kind, self.folders.mktemp("grown"))
        return self[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_known_items_keep_their_rows_and_everything_else_stays(grown: dict[str, Grown], kind: str) -> None:
    g = grown[kind]
    assert (len(g.known), len(g.new)) == (20, 8)
    assert "items: 20 known, 8 new" in g.line
    assert g.line.endswith("4 gone; users: 36 known, 4 new, 4 gone")
    now, before = g.trainer.tensors(), g.parent.tensors
    here, there = (torch.tensor(places) for places in zip(*g.known, strict=True))
    new = torch.tensor(g.new)
    assert {name.partition("/")[0] for name in now} == {"model", "optimizer", "average"}
    hashed = "item_hashes" in KINDS[kind][1]
    for name, value in now.items():
        if name.endswith(".numbers"):
            assert hashed
            continue
        old = before[name]
        table = "embedding.weight" in name and value.dim() == 2 and not hashed
        table |= UPDATES in name and not hashed
        if table and KINDS[kind][1].get("item_parts") != "features":
            assert torch.equal(value[here], old[there]), name
            assert torch.equal(value[28:], old[24:]), name  # the mask token's
            if name.startswith("optimizer"):
                assert not value[new].any(), name
            elif UPDATES in name:
                assert (value[new] == g.parent.progress.global_step).all()
        elif "tag_weight" in name and value.dim() == 2:
            # k0 to k3, and in the middle of the columns' names the one that only one log has.
            assert torch.equal(value[:4], old[:4]), name
            assert not value[4:].any(), name
        else:
            assert torch.equal(value, old), name
    moments = [name for name in before if name.startswith("optimizer")]
    assert moments
    assert all(name in now for name in moments)
    progress = g.trainer.progress
    assert (progress.epoch, progress.best, progress.history) == (0, None, [])
    assert progress.global_step == g.parent.progress.global_step > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_goes_on_scores_known_items_as_before(grown: dict[str, Grown], kind: str) -> None:
    g = grown[kind]
    # The parent's last weights, not the best ones that it answers by.
    before = build_encoder(
        KINDS[kind][0], g.before.n_items, g.parent.settings.encoder, features=item_inputs(g.before)
    )
    before.load_state_dict({n[6:]: v for n, v in g.parent.tensors.items() if n.startswith("model/")})
    # The item whose features are others in the two logs is asked nothing.
    known = [pair for pair in g.known if pair[0] != 0 and pair[1] != 0]
    here, there = (torch.tensor(places) for places in zip(*known, strict=True))
    scores = []
    for encoder, places in ((before, there), (g.trainer.encoder, here)):
        encoder.eval()
        batch = SequenceBatch.from_sequences([places[[3, 1, 4, 1]].tolist(), places[[5, 9]].tolist()])
        with torch.no_grad():
            scores.append(encoder.user_state(batch) @ encoder.item_weight[places].T)
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-5, atol=1e-6)


def _vectors(g: Grown, part: str, table: str) -> Tensor:
    return g.trainer.tensors()[f"{part}/{table}.weight"]


@pytest.mark.parametrize("kind", ["plain", "untied", "sampled", "mamba", "mask row"])
def test_new_items_start_from_the_items_beside_them(grown: dict[str, Grown], kind: str) -> None:
    g = grown[kind]
    known = np.zeros(g.after.n_items, dtype=bool)
    known[[here for here, _ in g.known]] = True
    first, *further = neighbour_bags(g.after, known)
    begun = {int(item) for bags in (first, *further) for item in bags.items}
    assert f"8 new ({len(begun)} start from the items beside them" in g.line
    for table in ("item_embedding", "output_embedding") if kind == "untied" else ("item_embedding",):
        rows = _vectors(g, "model", table)
        for item, start, end in zip(first.items, first.offsets[:-1], first.offsets[1:], strict=True):
            beside, weights = first.rows[start:end], torch.from_numpy(first.weights[start:end])
            mean = (rows[beside] * weights[:, None]).sum(0)
            torch.testing.assert_close(rows[item], mean, rtol=1e-5, atol=1e-7)
        drawn = [place for place in g.new if place not in begun]
        assert torch.equal(rows[drawn], g.drawn[f"model/{table}.weight"][drawn])
        assert torch.equal(_vectors(g, "average", table)[g.new], rows[g.new])


@pytest.mark.parametrize("kind", ["features", "features, untied"])
def test_new_items_of_a_run_with_features_start_from_these(grown: dict[str, Grown], kind: str) -> None:
    g = grown[kind]
    assert "8 new (they start from their features)" in g.line
    tables = ["item_embedding", "output_embedding"] if kind == "features, untied" else ["item_embedding"]
    for table in tables:
        assert not _vectors(g, "model", table)[g.new].any()
    encoder = g.trainer.encoder.eval()
    assert (encoder.item_vectors()[g.new].abs().sum(1) > 0).all()


def test_hashed_items_have_numbers_that_outlast_catalogs(grown: dict[str, Grown]) -> None:
    g = grown["hashed"]
    assert "8 new (they start from the rows that they share)" in g.line
    numbers = g.trainer.encoder.state_dict()["item_embedding.numbers"]
    assert numbers.dtype == torch.int32
    assert [int(numbers[here]) for here, _ in g.known] == [there for _, there in g.known]
    assert sorted(int(numbers[place]) for place in g.new) == list(range(24, 32))
    assert int(numbers[-1]) == 32  # the mask token's is the greatest
    # The next generation hands them on, although its places are others again.
    model = Recommender("bert4rec", encoder_options={**SIZES, "item_hashes": 2, "item_buckets": 17})
    folder = g.run.parent
    model.training_options = {**TRAINING, "epochs": 1}
    first = copy.copy(model).fit(g.after, out=folder / "first", from_run=g.run)
    back = model.fit(g.before, out=folder / "back", from_run=folder / "first")
    there = {name: place for place, name in enumerate(item_vocabulary(g.after).ids.to_list())}
    ids = item_vocabulary(g.before).ids.to_list()
    kept = [first.encoder_.state_dict()["item_embedding.numbers"][there[n]] for n in ids if n in there]
    again = back.encoder_.state_dict()["item_embedding.numbers"]
    assert [int(n) for n, name in zip(again, ids, strict=False) if name in there] == [int(n) for n in kept]
    loaded = recsys.load(folder / "back")
    histories = [["i84", "i90", "i100"]]
    assert loaded.recommend(histories=histories).equals(back.recommend(histories=histories))


def _tensors(run: Path) -> dict[str, Tensor]:
    (path,) = (run / "checkpoint").glob("tensors-*.safetensors")
    return {n: v for n, v in load_file(path).items() if not n.startswith("best/")}


@pytest.mark.parametrize("kind", ["plain", "sampled", "hashed, sampled", "features, untied"])
def test_the_same_log_goes_on_as_a_resumed_run_does(grown: dict[str, Grown], kind: str) -> None:
    g = grown[kind]
    name, encoder, training = KINDS[kind]
    model = Recommender(name, encoder_options={**SIZES, **encoder})
    model.training_options = {**TRAINING, **training, "epochs": 4}
    resumed = g.run.parent / "resumed"
    shutil.copytree(g.run, resumed)
    model.fit(g.before, out=resumed, resume=True)
    model.training_options = {**TRAINING, **training, "epochs": 2}
    said: list[str] = []
    model.fit(g.before, out=g.run.parent / "same", from_run=g.run, notify=said.append)
    assert any("24 known, 0 new, 0 gone" in line for line in said)
    wanted, found = _tensors(resumed), _tensors(g.run.parent / "same")
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    records = [
        json.loads(line) for line in (g.run.parent / "same" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [record["epoch"] for record in records] == [1, 2]
    # And a third run counts all that was before.
    model.training_options = {**TRAINING, **training, "epochs": 1}
    model.fit(g.before, out=g.run.parent / "third", from_run=g.run.parent / "same")
    assert json.loads((g.run.parent / "third" / "run.json").read_text())["parent"]["epochs"] == 4


class _Cut(Callback):
    def on_epoch_end(self, record: Mapping[str, Any]) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "named"), [("untied", True), ("hashed", False), ("sampled", True)])
def test_a_run_that_was_cut_short_goes_on_by_itself(
    grown: dict[str, Grown], tmp_path: Path, kind: str, named: bool
) -> None:
    g = grown[kind]
    name, encoder, training = KINDS[kind]
    options = {**TRAINING, **training, "epochs": 4}
    model = Recommender(name, encoder_options={**SIZES, **encoder}, training_options=options)
    losses = [r["loss"] for r in model.fit(g.after, out=tmp_path / "whole", from_run=g.run).history_]
    with pytest.raises(KeyboardInterrupt):
        model.fit(g.after, out=tmp_path / "cut", from_run=g.run, callbacks=[_Cut()])
    assert not (tmp_path / "cut" / "run.json").exists()
    on = model.fit(g.after, out=tmp_path / "cut", resume=True, from_run=g.run if named else None)
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert [r["loss"] for r in on.history_] == losses
    parents = [json.loads((tmp_path / run / "run.json").read_text())["parent"] for run in ("whole", "cut")]
    assert parents[0] == parents[1]
    assert recsys.load(tmp_path / "cut").recommend(histories=[["i84", "i110"]], k=3).height == 3


def test_resuming_from_another_parent_is_refused(grown: dict[str, Grown], tmp_path: Path) -> None:
    g = grown["untied"]
    options = {**SIZES, **KINDS["untied"][1]}
    model = Recommender("sasrec", encoder_options=options, training_options=TRAINING)
    model.fit(g.after, out=tmp_path / "one", from_run=g.run)
    with pytest.raises(RunError, match=r"one: the run there began from .*run; resume without from_run="):
        model.fit(g.after, out=tmp_path / "one", resume=True, from_run=tmp_path / "one")
    with pytest.raises(RunError, match=r"run: the run there began anew; resume without"):
        model.fit(g.before, out=g.run, resume=True, from_run=tmp_path / "one")


def test_a_run_may_be_replaced_by_its_successor_and_names_it(grown: dict[str, Grown], tmp_path: Path) -> None:
    g = grown["plain"]
    run = tmp_path / "run"
    shutil.copytree(g.run, run)
    before = json.loads((run / "run.json").read_text())
    assert "parent" not in before
    model = recsys.load(run)
    model.training_options = {**(model.training_options or {}), "epochs": 1}
    model.fit(g.after, out=run, from_run=run, overwrite=True)
    parent = json.loads((run / "run.json").read_text())["parent"]
    assert (parent["path"], parent["sha256"], parent["epochs"]) == (str(run), before["sha256"], 2)
    assert parent["items"] == {"known": 20, "new": 8, "gone": 4}
    assert parent["users"] == {"known": 36, "new": 4, "gone": 4}
    loaded = recsys.load(run)
    card = loaded.evaluate().describe_protocol()
    assert f"Goes on from: {run} (sha256 {before['sha256'][:12]}), trained for 2 epochs: 20 of its" in card
    loaded.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "run.json").read_text())["parent"] == parent
    # Old items answer, new ones too, those that are gone do not.
    found = loaded.recommend(histories=[["i90", "i108"]], k=28, exclude_seen=False)
    assert set(found["item_id"]) == {f"i{number}" for number in range(84, 112)}


def test_in_memory_it_is_the_same(grown: dict[str, Grown], tmp_path: Path) -> None:
    g = grown["plain"]
    model = Recommender("sasrec", encoder_options={**SIZES, "repeat_bias": 2}, training_options=TRAINING)
    table = model.fit(AFTER, from_run=g.run).encoder_.item_vectors()
    into = model.fit(g.after, from_run=g.run, out=tmp_path / "run").encoder_.item_vectors()
    assert torch.equal(table, into)


def test_the_loss_stays_though_the_catalog_grew_beyond_its_limit(
    grown: dict[str, Grown], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    g = grown["plain"]
    monkeypatch.setitem(losses.FULL_LOSS_ITEMS, "cpu", 26)
    said: list[str] = []
    model = Recommender("sasrec", encoder_options={**SIZES, "repeat_bias": 2}, training_options=TRAINING)
    model.fit(g.after, from_run=g.run, out=tmp_path / "run", notify=said.append)
    assert any(line.startswith("The loss stays full, with which") for line in said)
    assert model.training_.loss == "full"


@pytest.mark.parametrize(
    ("kind", "before", "now"),
    [
        ("sampled", 0.9, 0.5),  # a lazy average whose factor is another now is brought up to date
        ("sampled", 0.9, 0.0),
        ("plain", 0.9, 0.5),
    ],
)
def test_another_average_begins_where_the_last_one_stood(
    grown: dict[str, Grown], kind: str, before: float, now: float
) -> None:
    g = grown[kind]
    settings = g.parent.settings
    assert settings.training.ema_decay == before
    training = dataclasses.replace(settings.training, ema_decay=now)
    encoder = build_encoder(KINDS[kind][0], g.after.n_items, settings.encoder)
    trainer = Trainer(encoder, g.after, training)
    g.succession.hand_over(trainer)
    averages = {n: v for n, v in trainer.tensors().items() if n.startswith("average/")}
    if now == 0:
        assert not averages
        return
    # What the parent's own average comes to after its last step.
    model = build_encoder(KINDS[kind][0], g.before.n_items, settings.encoder)
    parent = Trainer(model, g.before, settings.training)
    parent.start_from(g.parent.progress, g.parent.tensors)
    step = g.parent.progress.global_step
    wanted = parent._average.values(step)["item_embedding.weight"]
    here, there = (torch.tensor(places) for places in zip(*g.known, strict=True))
    found = trainer._average.values(step)["item_embedding.weight"]
    torch.testing.assert_close(found[here], wanted[there])
    if kind == "sampled":
        assert (averages[f"average/{UPDATES}item_embedding.weight"] == step).all()


def test_an_average_that_was_not_kept_begins_at_the_weights(grown: dict[str, Grown], tmp_path: Path) -> None:
    g = grown["plain"]
    options = {**SIZES, "repeat_bias": 2}
    model = Recommender("sasrec", encoder_options=options, training_options={**TRAINING, "ema_decay": 0.0})
    model.fit(g.before, out=tmp_path / "run")
    parent = read_parent(tmp_path / "run")
    training = dataclasses.replace(parent.settings.training, ema_decay=0.9)
    encoder = build_encoder("sasrec", g.after.n_items, parent.settings.encoder)
    trainer = Trainer(encoder, g.after, training)
    Succession.of(parent, g.after, "after").hand_over(trainer)
    now = trainer.tensors()
    averages = {n.partition("/")[2] for n in now if n.startswith("average/")}
    assert averages == {name for name, _ in encoder.named_parameters()}
    assert all(torch.equal(now[f"average/{name}"], now[f"model/{name}"]) for name in averages)


def test_a_parent_is_one_run_folder(grown: dict[str, Grown]) -> None:
    assert read_parent(grown["plain"].run).run == RunFolder(grown["plain"].run)
