"""Items that are more than their ids: in every encoder, under every loss, on every path the same numbers."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.item_tower import ItemTower
from recsys.encoders.later_items import LaterItems
from recsys.errors import ArgumentError, ConfigError, RunError
from recsys.jagged import SequenceBatch
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs
from recsys.training.trainer import Trainer

SMALL: dict[str, Any] = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16, "dropout": 0.0}
TINY: dict[str, Any] = {"amp": False, "epochs": 2, "batch_events": 256, "warmup_steps": 0}
BOTH: dict[str, Any] = {"item_parts": "id+features"}
WIDTH = 6


def _items(log: pl.DataFrame, further: int = 0) -> tuple[pl.DataFrame, np.ndarray[Any, Any]]:
    ids = [*log["item_id"].unique().sort(), *range(1000, 1000 + further)]
    rng = np.random.default_rng(4)
    tags = [[f"t{rng.integers(5)}", f"u{rng.integers(3)}"][: rng.integers(3)] for _ in ids]
    return pl.DataFrame({"item_id": ids, "tag": tags}), rng.normal(size=(len(ids), WIDTH)) + 2


@pytest.fixture(scope="module")
def featured(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    items, vectors = _items(log)
    out = Path(tmp_path_factory.mktemp("featured")) / "data"
    return prepare(log, out, items=items, item_tags="tag", item_vectors=vectors)


@pytest.fixture(scope="module")
def cold(log: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    items, vectors = _items(log, further=7)
    out = Path(tmp_path_factory.mktemp("cold")) / "data"
    return prepare(log, out, items=items, item_tags="tag", item_vectors=vectors, keep_cold=True)


def _encoder(store: SequenceStore, name: str = "sasrec", **options: Any) -> SequenceEncoder:
    config = encoder_config(name, {**SMALL, **options})
    return build_encoder(name, store.n_items, config, features=item_inputs(store))


def _trainer(store: SequenceStore, name: str = "sasrec", **options: Any) -> Trainer:
    fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    training = {key: options.pop(key) for key in set(options) & fields}
    return Trainer(_encoder(store, name, **options), store, TrainingConfig(**{**TINY, **training}))


def _definition(tower: ItemTower, store: SequenceStore) -> Tensor:
    """(V, D) float64 by the equation."""
    features = store.item_features
    assert features is not None
    assert features.vectors is not None
    assert tower.tag_weight is not None
    projection = tower.projection
    assert projection is not None
    state = {name: value.double() for name, value in tower.state_dict().items()}
    out: Tensor = torch.from_numpy(features.vectors.astype(np.float64)) @ state["projection.weight"].T
    out += state["projection.bias"]
    for item in range(store.n_items):
        for entry in range(features.tag_offsets[item], features.tag_offsets[item + 1]):
            out[item] += float(features.tag_weights[entry]) * state["tag_weight"][features.tags[entry]]
    return out


@pytest.mark.parametrize("options", [BOTH, {"item_parts": "features"}, {**BOTH, "tie_items": False}])
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_an_items_vector_is_the_sum_of_its_parts(
    featured: SequenceStore, name: str, options: dict[str, Any]
) -> None:
    encoder = _encoder(featured, name, **options).eval()
    for tower in (encoder.item_embedding, encoder.scored_items):
        assert isinstance(tower, ItemTower)
        wanted = _definition(tower, featured)
        if options["item_parts"] != "features":
            wanted += tower.weight[: featured.n_items].detach().double()
        ids = torch.tensor([3, 0, 3, 29])
        found = tower(ids)  # with a gradient: vectors of these items alone
        torch.testing.assert_close(found.detach().double(), wanted[ids], rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            torch.testing.assert_close(tower(ids), found.detach())
            torch.testing.assert_close(tower.vectors(featured.n_items).double(), wanted, rtol=1e-5, atol=1e-6)
    # What an encoder has without features begins as it does without them.
    alone = encoder_config(name, {**SMALL, "tie_items": options.get("tie_items", True)})
    plain = build_encoder(name, featured.n_items, alone).state_dict()
    begun = encoder.state_dict()
    tables = {name for name in plain if options["item_parts"] == "features" and "embedding" in name}
    assert all(torch.equal(begun[n], plain[n]) for n in plain.keys() - tables)


def test_ids_alone_are_what_they_were(featured: SequenceStore, log: pl.DataFrame, tmp_path: Path) -> None:
    plain = prepare(log, tmp_path / "plain")
    weights = []
    for store in (plain, featured):
        trainer = _trainer(store)
        trainer.run()
        weights.append(trainer.encoder.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def _gradients(trainer: Trainer) -> tuple[float, dict[str, Tensor]]:
    trainer.encoder.zero_grad(set_to_none=True)
    loss, _ = trainer.loss(trainer._plan(0), 0, 0)
    loss.backward()
    gradients = {
        n: p.grad.to_dense().clone() for n, p in trainer.encoder.named_parameters() if p.grad is not None
    }
    return float(loss.detach()), gradients


@pytest.mark.parametrize("loss", ["full", "sampled_softmax", "gbce", "bce", "bpr"])
@pytest.mark.parametrize("options", [{}, {"tie_items": False}, {"item_hashes": 2, "item_buckets": 11}])
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_holding_a_table_changes_no_number(
    cold: SequenceStore, name: str, options: dict[str, Any], loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**BOTH, **options, "item_id_dropout": 0.3, "loss": loss, "negatives": 0 if loss == "full" else 5}
    if loss == "full":
        del asked["negatives"]
    trainer = _trainer(cold, name, **asked)
    trainer.encoder.double().train()
    one, gradients = _gradients(trainer)
    # Every table made whole, whatever the batch needs of it: the same loss, the same gradients.
    held = ItemTower.held
    monkeypatch.setattr(ItemTower, "held", lambda self, ids, seed: held(self, None, seed))
    other, whole = _gradients(trainer)
    assert abs(one - other) <= 1e-12 * abs(one)
    assert gradients.keys() == whole.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, whole[key], rtol=1e-9, atol=1e-12, msg=key)
    for part in ("tag_weight", "projection.weight", "projection.bias", "weight"):
        assert gradients[f"item_embedding.{part}"].abs().sum() > 0


def test_the_softmax_and_the_negatives_are_over_trained_items(cold: SequenceStore) -> None:
    trained = torch.from_numpy(np.flatnonzero(cold.item_counts() > 0))
    assert len(trained) == cold.n_items - 7
    # Nothing is shared by ids alone: what never trains is to come last.
    assert _trainer(cold)._loss.n_items == cold.n_items
    trainer = _trainer(cold, **BOTH)
    encoder, losses = trainer.encoder.eval(), trainer._loss
    assert losses.n_items == len(trained)
    hidden, targets = torch.randn(9, 16), trained[torch.arange(9)]
    weight = encoder.item_weight.detach()
    wanted = torch.nn.functional.cross_entropy(hidden @ weight[trained].T, torch.arange(9))
    torch.testing.assert_close(losses(hidden, targets, None).detach(), wanted)
    gradient = torch.autograd.grad(losses(hidden, targets, None), encoder.item_embedding.weight)[0]
    assert not gradient[cold.item_counts() == 0].any()
    assert not encoder.item_embedding.weight[cold.item_counts() == 0].any()
    for loss, sampling in (("bce", "uniform"), ("sampled_softmax", "popularity"), ("gbce", "uniform")):
        losses = _trainer(cold, **BOTH, loss=loss, negatives=40, negative_sampling=sampling)._loss
        negatives = losses.draw(trained[torch.arange(20) % len(trained)], 3)
        assert negatives is not None
        assert set(negatives.ids.flatten().tolist()) == set(trained.tolist())


def test_id_rows_are_left_out_by_seed_and_item(featured: SequenceStore) -> None:
    encoder = _encoder(featured, **BOTH, item_id_dropout=0.4)
    tower = encoder.item_embedding
    assert isinstance(tower, ItemTower)
    bare = _definition(tower, featured)

    def left_out(seed: int, ids: Tensor | None = None) -> list[int]:
        asked = torch.arange(featured.n_items) if ids is None else ids
        with tower.held(ids, seed):
            near = (tower(asked).detach().double() - bare[asked]).abs().amax(1) < 1e-6
        return [int(item) for item in asked[near]]

    first = left_out(5)
    assert first == left_out(5)
    assert first != left_out(6)
    some = torch.tensor([0, 4, 9, 17, 28])
    assert left_out(5, some) == [item for item in first if item in some.tolist()]
    counts = [len(left_out(seed)) for seed in range(200)]
    # Binomial: 200 x 30 draws of .4 have a deviation of 38.
    assert abs(sum(counts) - 0.4 * 200 * featured.n_items) < 200
    encoder.eval()
    assert left_out(5) == []


@pytest.mark.parametrize("loss", ["full", "gbce"])
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_a_resumed_run_is_the_whole_one(
    cold: SequenceStore, tmp_path: Path, loss: str, projection: str
) -> None:
    options: dict[str, Any] = {**BOTH, "item_id_dropout": 0.2, "item_projection": projection, "loss": loss}
    options |= {"dropout": 0.2, "ema_decay": 0.9}
    whole = _trainer(cold, **options, epochs=4)
    whole.run()
    begun = _trainer(cold, **options)
    begun.folder = tmp_path
    begun.run()
    resumed = _trainer(cold, **options, epochs=4)
    resumed.folder = tmp_path
    resumed.run(resume=True)
    wanted = whole.encoder.state_dict()
    found = resumed.encoder.state_dict()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    other = _trainer(cold, epochs=4, loss=loss, ema_decay=0.9, dropout=0.2)
    other.folder = tmp_path
    with pytest.raises(RunError, match="item_parts"):
        other.run(resume=True)


def test_kept_vectors_follow_the_weights(featured: SequenceStore) -> None:
    encoder = _encoder(featured, **BOTH).eval()
    batch = SequenceBatch.from_lengths(np.array([1, 2, 3]), np.array([3]))
    with torch.no_grad():
        before, vectors = encoder.user_state(batch), encoder.item_vectors()
        assert encoder.item_vectors().data_ptr() == vectors.data_ptr()  # kept
        for parameter in (encoder.item_embedding.weight, encoder.get_parameter("item_embedding.tag_weight")):
            parameter.add_(1.0)
            assert not torch.equal(encoder.item_vectors(), vectors)
            vectors = encoder.item_vectors()
        assert not torch.equal(encoder.user_state(batch), before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_held_table_has_no_vectors_of_items_that_nobody_named(cold: SequenceStore, tied: bool) -> None:
    encoder = _encoder(cold, **BOTH, tie_items=tied)
    seen, scored = torch.tensor([3, 7, 3]), torch.tensor([9, 4])
    with encoder.items_held(seen, scored):
        assert encoder.item_embedding(seen).shape == (3, 16)
        for table, ids in ((encoder.item_embedding, [5]), (encoder.scored_items, [4, 36, 9])):
            with pytest.raises(
                ArgumentError, match=r"item (5|36) is not among the \d whose vectors are held"
            ):
                table(torch.tensor(ids))
        if not tied:
            with pytest.raises(ArgumentError, match="item 9 is not among"):
                encoder.item_embedding(scored)
    with encoder.items_held(seen[:0], scored[:0]), pytest.raises(ArgumentError, match="among the 0"):
        encoder.item_embedding(seen)


def test_later_items_stand_behind_the_extra_ones(cold: SequenceStore) -> None:
    encoder = _encoder(cold, "bert4rec", **BOTH)
    inputs, v = item_inputs(cold), cold.n_items
    assert inputs is not None
    assert inputs.vectors is not None
    first, last = inputs.tag_offsets[v - 2 :][[0, 2]]
    later = LaterItems(
        tags=inputs.tags[first:last],
        tag_offsets=inputs.tag_offsets[v - 2 :] - first,
        tag_weights=inputs.tag_weights[first:last],
        vectors=inputs.vectors[v - 2 :],
    )
    encoder.set_later_items(later)
    np.testing.assert_array_equal(encoder.places_of(np.array([0, v - 1, v, v + 1])), [0, v - 1, v + 1, v + 2])
    alike = torch.tensor([v - 2, v + 1, v - 1, v + 2, 5])
    for training in (True, False):  # vectors of these items alone, and of all
        found = encoder.train(training).item_embedding(alike)
        torch.testing.assert_close(found[[1, 3]], found[[0, 2]])
        assert not torch.equal(found[0], found[2])
        encoder.requires_grad_(False)
    with torch.no_grad():
        found = encoder.item_embedding(alike)
    assert torch.equal(found[[1, 3]], found[[0, 2]])
    assert encoder.later_item_vectors().shape == (2, 16)
    wrong = dataclasses.replace(later, tags=later.tags + 100)
    with pytest.raises(ArgumentError, match="bears a tag outside"):
        encoder.set_later_items(wrong)
    with pytest.raises(ArgumentError, match=f"have 3 numbers, those of the catalog {WIDTH}"):
        encoder.set_later_items(dataclasses.replace(later, vectors=inputs.vectors[v - 2 :, :3]))
    plain = build_encoder("sasrec", v, encoder_config("sasrec", SMALL))
    with pytest.raises(ArgumentError, match="ids alone"):
        plain.set_later_items(later)
    encoder.set_later_items(None)
    assert encoder.n_later_items == 0


def test_a_projection_starts_from_the_principal_directions(featured: SequenceStore) -> None:
    tower = _encoder(featured, item_parts="features").item_embedding
    assert isinstance(tower, ItemTower)
    assert tower.projection is not None
    assert featured.item_features is not None
    assert featured.item_features.vectors is not None
    x = torch.from_numpy(featured.item_features.vectors.astype(np.float32))
    made = tower.projection(None).detach()
    torch.testing.assert_close(made.mean(0), torch.zeros(16), rtol=0, atol=1e-5)
    assert abs(float(made.square().mean().sqrt()) - 0.02) < 1e-4
    # Six numbers become sixteen, all distances kept up to one factor.
    ratio = torch.pdist(made) / torch.pdist(x)
    assert float(ratio.max() / ratio.min()) < 1.001


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_an_item_without_a_vector_has_no_part_of_the_projection(
    log: pl.DataFrame, tmp_path: Path, projection: str
) -> None:
    items, vectors = _items(log)
    some = [None if place % 3 == 0 else vector for place, vector in enumerate(vectors.tolist())]
    store = prepare(log, tmp_path / "data", items=items.with_columns(pl.Series("x", some)), item_vectors="x")
    tower = _encoder(store, item_parts="features", item_projection=projection).eval().item_embedding
    ids = torch.arange(store.n_items)
    with torch.no_grad():
        kept = tower(ids)
    for made in (tower(ids), kept, tower.vectors(store.n_items)):
        lacking = made.abs().sum(1) == 0
        assert lacking.tolist() == [place % 3 == 0 for place in range(store.n_items)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"item_parts": "ids"}, "item_parts"),
        ({"item_id_dropout": 0.1}, "item_id_dropout"),
        ({**BOTH, "item_id_dropout": 1.0}, "item_id_dropout"),
        ({"item_projection": "mlp"}, "item_projection"),
        ({"item_parts": "features", "item_hashes": 2}, "item_hashes"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=f"encoder.{words}"):
        encoder_config("sasrec", options)


def test_features_that_are_missing_are_named(store: SequenceStore, log: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs features of items and the data have none.*item_tags="):
        _encoder(store, **BOTH)
    items, _ = _items(log)
    tags = prepare(log, tmp_path / "tags", items=items, item_tags="tag")
    with pytest.raises(ConfigError, match="'mlp' needs vectors"):
        _encoder(tags, **BOTH, item_projection="mlp")
    with pytest.raises(ConfigError, match="features are of 30 items and the encoder has 31"):
        build_encoder("sasrec", 31, encoder_config("sasrec", {**SMALL, **BOTH}), features=item_inputs(tags))
