"""The parts of an item table in rows over processes that need one process alone."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.items import ItemEmbedding, ShardedItemEmbedding, making_rows
from recsys.errors import ArgumentError, ConfigError, RunError
from recsys.recommender import Recommender
from recsys.run_folder.layout import PARTS
from recsys.training import checkpoint
from recsys.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from recsys.training.config import TrainingConfig
from recsys.training.exact_norm import exact_norm
from recsys.training.identity import Identity, upgraded
from recsys.training.item_files import TABLE, ItemFile, is_of_rows, load_rows, own_rows, save_rows
from recsys.training.item_inputs import item_inputs
from recsys.training.sharded_items import check_shardable
from recsys.training.trainer import Trainer
from tests.conftest import random_log
from tests.training.processes.cases import QUICK, SMALL, made_store

WHO = Identity(encoder={"class": "x"}, training={"shard_items": True}, dataset="d", loss="sampled_softmax")


def test_a_norm_is_the_same_in_any_order_and_close_to_the_true_one() -> None:
    values = torch.randn(1000, 64, generator=torch.Generator().manual_seed(2))
    for scale in (1.0, 1e-35, 1e30):
        scaled = values * scale
        found = exact_norm(scaled)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(torch.linalg.vector_norm(scaled.double())), rel=1e-7)
        order = torch.randperm(1000, generator=torch.Generator().manual_seed(3))
        assert exact_norm(scaled[order]) == found
        assert exact_norm(torch.cat((scaled, scaled.new_zeros(0, 64)))) == found


def test_small_numbers_beside_a_large_one_are_not_lost() -> None:
    values = torch.full((1_000_001,), 2.0**-21)  # squares that the first rounding takes for zero
    values[7] = 1.0
    assert float(exact_norm(values)) == pytest.approx((1 + 1e6 * 2.0**-42) ** 0.5, rel=6e-8)
    many = torch.full((1_000_000,), 2.0**-10.5)
    many[7] = 1.0
    assert float(exact_norm(many)) == pytest.approx(float(many.double().square().sum()) ** 0.5, rel=6e-8)


def test_a_norm_of_nothing_or_of_what_is_no_number() -> None:
    assert exact_norm(torch.empty(0, 3)) == 0
    assert exact_norm(torch.zeros(2, 3)) == 0
    assert math.isnan(exact_norm(torch.tensor([1.0, math.nan])))
    assert math.isinf(exact_norm(torch.tensor([1.0, -math.inf])))
    assert exact_norm(torch.tensor([3.0, 4.0])) == 5


def _tensors(n_rows: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n_rows)
    return {
        "model/item_embedding.weight": torch.randn(n_rows, 3, generator=generator),
        "average/updates/item_embedding.weight": torch.arange(n_rows),
        "optimizer/item_embedding.weight/step": torch.tensor(7.0),
        "model/other": torch.ones(2, 2),
    }


def _saved(folder: Path, tensors: dict[str, torch.Tensor], size: int, progress: Progress) -> list[ItemFile]:
    """A checkpoint of so many processes; the rows' files."""
    files = []
    for rank in range(size):
        part = own_rows(tensors, rank, size)
        rows = {name: part[name] for name in list(tensors)[:2]}
        path = folder / f"items-{progress.place}-{rank}-of-{size}.safetensors"
        files.append(save_rows(path, rows, rank, size))
    rest = {name: tensors[name] for name in list(tensors)[2:]}
    save_checkpoint(folder, progress, rest, WHO, {}, files)
    return files


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("others", [1, 2, 4])
def test_rows_of_some_processes_are_read_by_others(tmp_path: Path, size: int, others: int) -> None:
    tensors = _tensors(11)
    _saved(tmp_path, tensors, size, Progress(epoch=1, global_step=5))
    for rank in range(others):
        _, found = load_checkpoint(tmp_path, WHO, (rank, others))
        wanted = own_rows(tensors, rank, others)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert len(found["model/item_embedding.weight"]) == len(range(rank, 11, others))


def test_a_whole_table_is_read_row_by_row(tmp_path: Path) -> None:
    tensors = _tensors(11)
    save_checkpoint(tmp_path, Progress(), tensors, WHO, {})
    _, found = load_checkpoint(tmp_path, WHO, (1, 3))
    assert torch.equal(found["model/item_embedding.weight"], tensors["model/item_embedding.weight"][1::3])
    assert torch.equal(found["model/other"], tensors["model/other"])


def test_a_set_of_files_that_is_cut_short_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = _tensors(9), _tensors(10)
    _saved(tmp_path, before, 2, Progress(epoch=0, global_step=5))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    # The same step, behind its validation: by then all files of the next set are there.
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            _saved(tmp_path, after, 2, Progress(epoch=1, global_step=5))
    progress, found = load_checkpoint(tmp_path, WHO)
    assert progress.epoch == 0
    assert torch.equal(found["model/item_embedding.weight"], before["model/item_embedding.weight"])
    _saved(tmp_path, after, 3, Progress(epoch=1, global_step=5))
    progress, found = load_checkpoint(tmp_path, WHO)
    assert torch.equal(found["model/item_embedding.weight"], after["model/item_embedding.weight"])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        *(f"items-1-5-{rank}-of-3.safetensors" for rank in range(3)),
        "state.json",
        "tensors-1-5.safetensors",
    ]
    assert all(re.fullmatch(PARTS["checkpoint"], name) for name in names)


def test_a_file_of_rows_that_is_missing_or_damaged_is_told(tmp_path: Path) -> None:
    files = _saved(tmp_path, _tensors(9), 2, Progress(epoch=1, global_step=5))
    path = tmp_path / files[1].name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(RunError, match=r"items-1-5-1-of-2.safetensors: missing or damaged"):
        load_checkpoint(tmp_path, WHO)
    path.unlink()
    with pytest.raises(RunError, match=r"items-1-5-1-of-2.safetensors: missing or damaged"):
        load_rows(tmp_path, [file.to_json() for file in files], 0, 2)
    state = json.loads((tmp_path / "state.json").read_text(encoding="utf-8"))
    (tmp_path / "state.json").write_text(json.dumps({**state, "items": [{"name": "x"}]}), encoding="utf-8")
    with pytest.raises(RunError, match="not a checkpoint of this project"):
        load_checkpoint(tmp_path, WHO)


def test_a_checkpoint_of_version_3_had_a_whole_table() -> None:
    identity = {"encoder": {}, "training": {"seed": 1}, "dataset": "d", "loss": "full"}
    found = upgraded({"format": 3, "identity": identity, "notes": {}}, Path("state.json"), WHO)
    assert found["items"] == []
    assert found["identity"]["training"].items() >= {"shard_items": False, "seed": 1}.items()


def test_rows_of_others_are_at_hand_inside_a_block_alone() -> None:
    whole = ItemEmbedding(7, 2)
    table = ShardedItemEmbedding.of(whole, 1, 3)
    table.connect(lambda ids: whole.weight.detach()[ids])
    assert torch.equal(table.weight, whole.weight[1::3])
    assert [table.n_own(n) for n in (7, 5, 4, 1)] == [2, 2, 1, 0]
    ids = torch.tensor([[4, 0], [4, 6]])
    with table.held(torch.tensor([0, 4, 6])):
        found = table(ids)
        assert torch.equal(found, whole.weight[ids])
        found.sum().backward()
        with pytest.raises(ArgumentError, match="item 5 is not among the 3 whose vectors are held"):
            table(torch.tensor([5]))
    assert table.at_hand is not None
    assert table.at_hand.grad is not None
    assert table.at_hand.grad.tolist() == [[1, 1], [2, 2], [1, 1]]
    for ask in (lambda: table(ids), lambda: table.vectors(7), lambda: table.places(ids)):
        with pytest.raises(ArgumentError, match=r"this process has rows 1, 4, ... of the item table alone"):
            ask()
    table.close()
    with pytest.raises(ArgumentError, match="load the run's folder"), table.held(torch.tensor([0])):
        pass


@pytest.mark.parametrize(("n_items", "width"), [(40, 16), (65_536 + 8, 10), (2 * 65_536 + 17, 8), (3, 8)])
def test_rows_are_drawn_as_those_of_a_whole_table(n_items: int, width: int) -> None:
    settings = encoder_config("bert4rec", {**SMALL, "d_model": width, "n_heads": 1})
    whole = build_encoder("bert4rec", n_items, settings, seed=4)
    for rank, size in ((0, 2), (1, 2), (2, 3)):
        with making_rows(rank, size):
            part = build_encoder("bert4rec", n_items, settings, seed=4)
        for (name, value), wanted in zip(part.state_dict().items(), whole.state_dict().values(), strict=True):
            assert torch.equal(value, wanted[rank::size] if name == TABLE else wanted), name
    assert isinstance(build_encoder("bert4rec", n_items, settings).item_embedding, ItemEmbedding)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"item_hashes": 2, "item_buckets": 16},
            r"encoder.item_hashes = 2 \(set 0, or keep the",
        ),
        ({"tie_items": False}, r"encoder.tie_items = false \(set true\)"),
        ({"repeat_bias": 3}, r"encoder.repeat_bias = 3 \(set 0\)"),
        ({"item_parts": "features"}, r"encoder.item_parts = 'features' \(set 'id'\)"),
    ],
)
def test_items_that_are_more_than_rows_of_a_table_are_refused(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    store = made_store(tmp_path / "data", features=True)
    settings = encoder_config("sasrec", {**SMALL, **options})
    encoder = build_encoder("sasrec", store.n_items, settings, features=item_inputs(store))
    changed: dict[str, Any] = {**QUICK, "loss": "full", "shard_items": True}
    config = TrainingConfig(**changed)
    with pytest.raises(ConfigError, match=said):
        Trainer(encoder, store, config)
    with pytest.raises(ConfigError, match="30 items cannot be shared out to 31 processes"):
        check_shardable(build_encoder("sasrec", 30, encoder_config("sasrec", SMALL)), 31)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SequenceStore:
    """A log of 60 users."""
    return prepare(random_log(users=60, items=30, seed=5), tmp_path_factory.mktemp("shared") / "data")


def test_a_presets_repeat_bias_gives_way(store: SequenceStore) -> None:
    told: list[str] = []
    options = {"epochs": 1, "batch_events": 256, "loss": "full", "shard_items": True}
    encoder = {"d_model": 16, "n_layers": 1, "max_length": 16}
    model = Recommender("sasrec", encoder_options=encoder, training_options=options, device="cpu")
    model.fit(store, notify=told.append)
    assert model.encoder_.repeat_bias is None
    assert any("repeat bias is left out: training.shard_items does not go with it" in line for line in told)


def test_a_checkpoint_before_the_first_step_has_no_rows(store: SequenceStore, tmp_path: Path) -> None:
    def made(folder: Path | None) -> Trainer:
        changed: dict[str, Any] = {**QUICK, "epochs": 1, "loss": "sampled_softmax", "shard_items": True}
        encoder = build_encoder("sasrec", store.n_items, encoder_config("sasrec", SMALL), seed=3)
        return Trainer(encoder, store, TrainingConfig(**changed), folder=folder)

    begun = made(tmp_path)
    rest = {name: value for name, value in begun.tensors().items() if not is_of_rows(name, value)}
    assert len(rest) < len(begun.tensors())
    save_checkpoint(tmp_path / "checkpoint", Progress(), rest, begun._identity(), {})
    taken_up, at_once = made(tmp_path), made(None)
    taken_up.run(resume=True)
    at_once.run()
    for found, wanted in zip(taken_up.encoder.parameters(), at_once.encoder.parameters(), strict=True):
        assert torch.equal(found, wanted)
