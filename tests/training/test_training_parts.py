"""The parts of training that have no run of their own: losses and their choice, averages, prefetching."""

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config, preset
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ConfigError
from recsys.kernels.sampling import log_expected_count, popularity_sampler
from recsys.training.averaging import WeightAverage
from recsys.training.checkpoint import Progress
from recsys.training.config import OWN_NEGATIVES, TrainingConfig
from recsys.training.estimate import Estimate
from recsys.training.loss_sums import LossSums
from recsys.training.losses import FULL_LOSS_ITEMS, TrainingLoss, plan_loss
from recsys.training.optimizer import RowAdamW, clip_gradients
from recsys.training.prefetch import prefetched
from recsys.training.processes import ALONE
from recsys.training.reporting import ConsoleReporter, SilentReporter
from recsys.training.trainer import Trainer

TINY: dict[str, Any] = {"epochs": 2, "batch_events": 128, "warmup_steps": 2}
CPU = torch.device("cpu")


def _config(**options: Any) -> TrainingConfig:
    return TrainingConfig(**options)


def _encoder(store: SequenceStore, **options: object) -> SequenceEncoder:
    small = {"d_model": 16, "n_layers": 1, "d_ff": 16, "max_length": 16, "dropout": 0.0}
    return build_encoder("sasrec", store.n_items, encoder_config("sasrec", {**small, **options}))


def _weights(encoder: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in encoder.parameters()])


pytestmark = pytest.mark.usefixtures("one_thread")


def test_auto_takes_the_full_loss_while_the_catalog_is_small_enough() -> None:
    for kind, limit in FULL_LOSS_ITEMS.items():
        device = torch.device(kind)
        small, large = (plan_loss(_config(), n, device) for n in (limit, limit + 1))
        assert (small.name, small.sampled, small.n_negatives) == ("full", False, 0)
        assert (large.name, large.sampled, large.shared) == ("sampled_softmax", True, True)
        assert large.n_negatives == OWN_NEGATIVES["sampled_softmax"]
        assert f"{limit:,}" in small.line
        assert f"{limit + 1:,} items, more than the {limit:,}" in large.line


def test_a_named_loss_is_taken_whatever_the_catalog() -> None:
    assert plan_loss(_config(loss="full"), 10**9, CPU).name == "full"
    for name in ("sampled_softmax", "gbce", "bce", "bpr"):
        plan = plan_loss(_config(loss=name), 10, CPU)
        assert (plan.name, plan.n_negatives) == (name, OWN_NEGATIVES[name])
        assert "as configured" in plan.line


def test_negatives_are_shared_where_products_pay() -> None:
    def shared(**options: Any) -> bool:
        return plan_loss(_config(**options), 1000, CPU).shared

    assert shared(loss="sampled_softmax", negatives=65)
    assert not shared(loss="sampled_softmax", negatives=64)
    assert not shared(loss="gbce", negatives=256)
    assert shared(loss="gbce", negative_sampling="in_batch")


def test_the_line_names_where_negatives_come_from() -> None:
    for sampling, words in (
        ("uniform", "5 uniform negatives for each target"),
        ("popularity", "5 negatives by popularity^0.5 for each target"),
        ("in_batch", "5 targets of the batch shared by the batch"),
    ):
        config = _config(
            loss="bce",
            negatives=5,
            negative_sampling=sampling,
            popularity_power=0.5,
        )
        assert words in plan_loss(config, 1000, CPU).line


def test_sasrec_as_published_has_one_uniform_negative() -> None:
    plan = plan_loss(_config(**preset("sasrec", "paper")["training"]), 1000, CPU)
    assert plan.line == "Loss: BCE over 1 uniform negatives for each target, as configured"


def test_the_correction_is_that_of_the_draws(store: SequenceStore) -> None:
    targets = torch.from_numpy(np.array(store.items[:50], dtype=np.int64))

    def draw(**options: Any) -> Any:
        loss = TrainingLoss(_encoder(store), store, _config(loss="sampled_softmax", **options))
        return loss.draw(targets, 7)

    own = draw(negatives=4)
    assert own.ids.shape == own.log_q.shape == (50, 4)
    assert not (own.ids == targets[:, None]).any()
    torch.testing.assert_close(own.log_q, torch.full((50, 4), float(np.log(4 / (store.n_items - 1)))))
    popular = draw(negatives=100, negative_sampling="popularity", popularity_power=0.5)
    sampler = popularity_sampler(store.item_counts(), 0.5)
    torch.testing.assert_close(popular.log_q, log_expected_count(sampler, popular.ids, 100))
    in_batch = draw(negatives=9, negative_sampling="in_batch")
    share = store.item_counts()[in_batch.ids.numpy()] / store.item_counts().sum()
    np.testing.assert_allclose(in_batch.log_q.numpy(), np.log(9 * share), rtol=1e-5)
    gbce = TrainingLoss(_encoder(store), store, _config(loss="gbce")).draw(targets, 7)
    assert gbce is not None
    assert gbce.log_q is None


def test_smoothing_is_refused_where_targets_are_no_distribution() -> None:
    with pytest.raises(ConfigError, match="training.label_smoothing = 0.1 is out of range: .*'gbce'"):
        _config(loss="gbce", label_smoothing=0.1)
    for field in ("accumulate", "prefetch", "negatives", "popularity_power", "gbce_t"):
        with pytest.raises(ConfigError, match=f"training.{field} = -1"):
            _config(**{field: -1})


@pytest.mark.parametrize("loss", ["bce", "sampled_softmax"])
def test_a_step_leaves_items_outside_the_batch_alone(store: SequenceStore, loss: str) -> None:
    encoder = _encoder(store)
    before = encoder.item_vectors().clone()
    options: dict[str, Any] = {**TINY, "batch_events": 8, "epochs": 1, "negatives": 1, "weight_decay": 0.1}
    trainer = Trainer(encoder, store, _config(loss=loss, **options))
    plan = trainer._plan(0)
    encoder.item_embedding.sparse = True
    prepared = trainer._prepare(plan, 0, 0)
    trainer._optimize([prepared], [prepared.task.n_targets], LossSums(ALONE), 0.0)
    assert prepared.negatives is not None
    touched = torch.cat(
        [prepared.task.batch.items, prepared.task.targets, prepared.negatives.ids.flatten()]
    ).unique()
    changed = (encoder.item_vectors() != before).any(1).nonzero()[:, 0]
    assert changed.tolist() == touched.tolist()
    assert len(touched) < store.n_items


def test_a_sparse_run_is_the_dense_run_while_every_row_is_touched(store: SequenceStore) -> None:
    # In-batch losses over a catalog of 30 items and large batches touch every item in every step.
    found = []
    for sparse in (True, False):
        config = _config(**TINY, loss="sampled_softmax", negatives=900, ema_decay=0.9)
        trainer = Trainer(_encoder(store), store, config)
        if not sparse:
            trainer.encoder.get_parameter("item_embedding.weight").register_post_accumulate_grad_hook(_dense)
        trainer.run()
        found.append(_weights(trainer.encoder))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def _dense(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad = parameter.grad.to_dense()


@pytest.mark.parametrize("loss", ["full", "gbce"])
def test_accumulated_gradients_are_those_of_all_targets(store: SequenceStore, loss: str) -> None:
    trainer = Trainer(_encoder(store), store, _config(**TINY, gradient_clip=0.0, loss=loss))
    trainer.encoder.item_embedding.sparse = loss != "full"
    plan = trainer._plan(0)
    group = [trainer._prepare(plan, 0, step) for step in range(3)]
    counts = [prepared.task.n_targets for prepared in group]
    assert len(set(counts)) > 1
    total = sum((trainer._loss_of(p) * n for p, n in zip(group, counts, strict=True)), torch.zeros(())) / sum(
        counts
    )
    parameters = list(trainer.encoder.parameters())
    exact = torch.autograd.grad(total, parameters)
    sums = LossSums(ALONE)
    trainer._optimize(group, counts, sums, 0.0)
    for parameter, gradient in zip(parameters, exact, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.to_dense(), gradient.to_dense())
    assert sums.n_targets == counts


def test_an_epoch_of_accumulated_batches_has_fewer_steps(store: SequenceStore) -> None:
    trainer = Trainer(_encoder(store), store, _config(**{**TINY, "epochs": 1}, accumulate=4))
    n_steps = trainer._plan(0).n_steps
    assert trainer.run().global_step == -(-n_steps // 4)


@pytest.mark.parametrize("loss", ["full", "gbce"])
def test_prefetching_changes_no_bit(store: SequenceStore, loss: str) -> None:
    found = []
    for ahead in (0, 1, 7):
        config = _config(**TINY, loss=loss, prefetch=ahead)
        trainer = Trainer(_encoder(store, dropout=0.3), store, config)
        trainer.run()
        found.append(_weights(trainer.encoder))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_batches_are_prepared_ahead_by_another_thread() -> None:
    made: list[int] = []
    threads: set[int] = set()

    def make(step: int) -> int:
        made.append(step)
        threads.add(threading.get_ident())
        return step * step

    with prefetched(make, range(10), 3) as results:
        assert next(results) == 0
        deadline = time.monotonic() + 10
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == [0, 1, 2, 3]  # three wait, and no more are made
        assert list(results) == [step * step for step in range(1, 10)]
    assert threading.get_ident() not in threads
    made.clear()
    with prefetched(make, range(3), 0) as results:
        assert next(results) == 0
        assert made == [0]


def test_an_error_in_a_batch_is_raised_where_it_is_due_and_no_thread_stays() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2")
        return step

    with prefetched(make, range(5), 2) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="step 2"):
            next(results)
    assert not [t for t in threading.enumerate() if t.name.startswith("recsys-batches")]


class _Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(20, 3))
        self.rest = nn.Parameter(torch.randn(4))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_a_lazy_average_is_the_average(decay: float) -> None:
    lazily, plainly = _Table(), _Table()
    lazy, plain = WeightAverage(lazily, decay, "table"), WeightAverage(plainly, decay)
    generator = torch.Generator().manual_seed(1)
    for step in range(60):
        rows = torch.randperm(20, generator=generator)[: step % 4].sort().values
        lazy.before_step(step, rows)
        plain.before_step(step, None)
        for model in (lazily, plainly):
            with torch.no_grad():
                model.table[rows] += 0.1 * step
                model.rest.add_(1)
        lazy.after_step(step, rows)
        plain.after_step(step, None)
        if step % 13 == 0:  # reading changes nothing
            torch.testing.assert_close(lazy.values(step + 1)["table"], plain.values(step + 1)["table"])
        if step == 30:  # as a checkpoint does
            again = WeightAverage(lazily, decay, "table")
            again.load({name: value.clone() for name, value in lazy.state().items()})
            lazy = again
    for name, value in plain.values(60).items():
        torch.testing.assert_close(lazy.values(60)[name], value)


def test_clipping_treats_sparse_gradients_like_dense_ones() -> None:
    found = []
    for sparse in (False, True):
        model = _Table()
        (model.rest.sum() * 3).backward()
        ids, rows = torch.tensor([[3, 3, 7]]), torch.arange(9.0).view(3, 3)
        gradient = torch.sparse_coo_tensor(ids, rows, (20, 3), check_invariants=True)
        model.table.grad = gradient if sparse else gradient.to_dense()
        clip_gradients(model, 2.0)
        assert model.table.grad.is_sparse == sparse
        assert model.rest.grad is not None
        found.append((model.table.grad.to_dense(), model.rest.grad))
        norm = sum(float(g.square().sum()) for g in found[-1]) ** 0.5
        assert norm == pytest.approx(2.0, rel=1e-5)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_the_optimizer_updates_sparse_and_dense_parameters_together() -> None:
    model, twin = _Table(), _Table()
    ours = RowAdamW(model.parameters(), lr=0.1, weight_decay=0.1, fused=True)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        rows = torch.randn(20, 3, generator=torch.Generator().manual_seed(step))
        ids = torch.arange(20)[None]
        model.table.grad = torch.sparse_coo_tensor(ids, rows, (20, 3), check_invariants=True)
        twin.table.grad = rows.clone()
        model.rest.grad = torch.ones(4)
        twin.rest.grad = torch.ones(4)
        ours.step()
        theirs.step()
    torch.testing.assert_close(_weights(model), _weights(twin))
    assert set(ours.state[model.table]) == set(theirs.state[twin.table])


class _Lines(SilentReporter):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def explained(self, line: str) -> None:
        self.seen.append(line)

    def started(self, estimate: Estimate, progress: Progress, epochs: int) -> None:
        self.seen.append("started")


def test_a_run_says_its_loss_before_it_starts(
    store: SequenceStore, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = _Lines()
    options = {**TINY, "epochs": 1, "amp": False}
    Trainer(_encoder(store), store, _config(**options), reporter=reporter).run()
    line = "Loss: full softmax, for 30 items, up to the 50,000 at which it pays on a cpu device"
    assert reporter.seen == [line, "started"]
    ConsoleReporter().explained(reporter.seen[0])
    assert capsys.readouterr().err.strip() == reporter.seen[0]
