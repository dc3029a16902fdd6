from contextlib import nullcontext
from typing import Any

import pytest
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.kernels.shared.backends import prefer_backend
from recsys.kernels.shared.vector.tiles import tiles_available
from recsys.training import precision
from recsys.training.config import TrainingConfig
from recsys.training.precision import MixedPrecision
from recsys.training.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Devices that autocast is asked for."""
    calls: list[str] = []

    class Autocast:
        def __init__(self, device: str, dtype: torch.dtype) -> None:
            assert dtype == torch.bfloat16
            calls.append(device)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch, "autocast", Autocast)
    return calls


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each time that linear layers are told to multiply in bfloat16."""
    calls: list[str] = []

    def narrow() -> nullcontext[None]:
        calls.append("linear")
        return nullcontext()

    monkeypatch.setattr(precision, "narrow_products", narrow)
    return calls


def _enter(mixed: MixedPrecision) -> None:
    with mixed.encoder():
        pass
    with mixed.loss():
        pass


@pytest.mark.parametrize("wanted", [True, False])
def test_a_gpu_casts_encoder_and_loss(asked: list[str], narrowed: list[str], wanted: bool) -> None:
    mixed = MixedPrecision(wanted, CUDA, full_softmax=True)
    assert mixed.line is None
    _enter(mixed)
    assert asked == ["cuda", "cuda"] * wanted
    assert not narrowed


@pytest.mark.parametrize(("wanted", "tiles"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("full_softmax", [True, False])
def test_a_cpu_with_tiles_rounds_products_and_casts_the_full_softmax_alone(
    asked: list[str],
    narrowed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool,
    tiles: bool,
    full_softmax: bool,
) -> None:
    monkeypatch.setattr(precision, "_compiled_for_tiles", lambda: tiles)
    mixed = MixedPrecision(wanted, CPU, full_softmax=full_softmax)
    used = wanted and tiles
    assert (mixed.line is not None) == used
    _enter(mixed)
    assert narrowed == ["linear"] * used
    assert asked == ["cpu"] * (used and full_softmax)


def test_the_reference_backend_is_left_in_full_precision() -> None:
    with prefer_backend("reference"):
        assert MixedPrecision(True, CPU, full_softmax=True).line is None


@pytest.mark.skipif(not tiles_available(), reason="this processor has no matrix tiles")
@pytest.mark.parametrize("name", ["sasrec", "bert4rec", "mamba"])
def test_gradients_are_near_those_of_full_precision(name: str, store: SequenceStore) -> None:
    gradients: list[dict[str, Any]] = []
    for amp in (False, True):
        encoder = build_encoder(name, store.n_items, encoder_config(name, {"d_model": 32}), seed=0)
        trainer = Trainer(encoder, store, TrainingConfig(amp=amp))
        plan = trainer._plan(0)
        encoder.train()
        trainer.loss(plan, 0, 0)[0].backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    assert exact.keys() == rounded.keys()
    total = torch.cat([g.flatten() for g in exact.values()])
    difference = torch.cat([(rounded[n] - g).flatten() for n, g in exact.items()])
    assert 0 < float(difference.norm()) < 0.03 * float(total.norm())
