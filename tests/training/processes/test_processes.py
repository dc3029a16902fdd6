"""Who the processes are, and sums of gradients, in one process."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.datasets.preparing.given import given_data
from recsys.errors import ArgumentError, ConfigError, RunError
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.run_folder.fitting import Fitting
from recsys.run_folder.settings import Recipe
from recsys.training.gradient_sums import GradientSum
from recsys.training.processes import ALONE, Processes, check_share, joined, launched


def test_lists_and_sampled_protocols_are_not_shared() -> None:
    for options in ({"lists": True}, {"lists": False, "protocol": "sasrec"}):
        with pytest.raises(ArgumentError, match="pass lists=False"):
            evaluate_hidden(lambda rows, _: rows, torch.ones(2, 2), _two(), sharing=ALONE, **options)  # type: ignore[arg-type,return-value]


def _two() -> Any:
    return SimpleNamespace(n_items=2)


def test_the_environment_says_who_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (0, 1)
    with joined(torch.device("cpu")) as processes:
        assert processes is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("", "3", "x"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match=f"WORLD_SIZE='3' and RANK='{rank}'"):
            launched()
    monkeypatch.setenv("RANK", "2")
    assert launched() == (2, 3)
    with pytest.raises(ConfigError, match="MASTER_ADDR is not set"), joined(torch.device("cpu")):
        pass


class Elsewhere(Processes):
    """Process 1 of 2, on a machine that does not see what process 0 writes."""

    rank = 1
    size = 2

    def __init__(self, run: Path) -> None:
        self._run = run

    def tell(self, value: Any) -> Any:
        """Where process 0 trains."""
        return {"home": str(self._run.with_name(".run.overwriting")), "run": str(self._run)}


def test_a_folder_that_another_machine_does_not_see_is_named(tmp_path: Path) -> None:
    recipe = Recipe(
        encoder="sasrec", preset="tuned", encoder_options={}, training_options={"accumulate": 2}, seed=0
    )
    fitting = Fitting(
        recipe=recipe,
        device=torch.device("cpu"),
        quiet=True,
        notify=print,
        callbacks=(),
        processes=Elsewhere(tmp_path / "run"),
    )
    with pytest.raises(RunError, match=r"run: process 1 does not see .* a disk that all machines share"):
        fitting.into(tmp_path / "run", given_data({"user_id": [1]}), resume=False, overwrite=False)
    assert not any(tmp_path.iterdir())


def test_the_batches_of_a_step_are_shared_evenly_or_not_at_all() -> None:
    check_share(6, 3)
    check_share(1, 1)
    with pytest.raises(ConfigError, match="accumulate = 3 batches make a step and 2 processes share them"):
        check_share(3, 2)
    with pytest.raises(ConfigError, match="accumulate = 1 batch makes a step"):
        check_share(1, 2)


def _rows(ids: list[int], scale: float) -> Tensor:
    values = torch.tensor([[scale / (1 + i), -scale] for i in range(len(ids))])
    return torch.sparse_coo_tensor(torch.tensor([ids]), values, (6, 2), check_invariants=True)


@pytest.mark.parametrize("merged", [True, False])
def test_gradients_are_added_as_autograd_adds_them(merged: bool) -> None:
    # The third is absent in a batch, the fourth in all, the fifth sparse in one batch and dense in another.
    shapes = [(3,), (6, 2), (2, 2), (4,), (6, 2)]
    generator = torch.Generator().manual_seed(0)
    drawn = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(3)]
    batches: list[list[Tensor | None]] = []
    for number, batch in enumerate(drawn):
        sparse = _rows([[1, 4], [4, 0, 4], [2, 1, 5]][number], 0.1 + number)
        sparse = sparse.coalesce() if merged else sparse
        third = None if number == 0 else batch[2]
        fifth = sparse if number == 1 else batch[4]
        batches.append([batch[0], sparse, third, None, fifth])
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    wanted = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    summed = GradientSum(parameters, ALONE)
    for gradients in batches:
        for own, other, gradient in zip(parameters, wanted, gradients, strict=True):
            own.grad = None if gradient is None else gradient.clone()
            if gradient is not None:
                other.grad = gradient.clone() if other.grad is None else other.grad + gradient
        summed.take()
        assert all(own.grad is None for own in parameters)
    summed.give(3)
    for own, other in zip(parameters, wanted, strict=True):
        assert (own.grad is None) == (other.grad is None)
        if own.grad is not None and other.grad is not None:
            assert own.grad.is_sparse == other.grad.is_sparse
            assert own.grad.to_dense().numpy().tobytes() == other.grad.to_dense().numpy().tobytes()


def test_what_is_absent_leaves_the_sign_of_a_zero_alone() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    summed = GradientSum([parameter], ALONE)
    for gradient in (torch.tensor([-0.0, 1.0]), None):
        parameter.grad = gradient
        summed.take()
    summed.give(2)
    assert parameter.grad is not None
    assert torch.signbit(parameter.grad).tolist() == [True, False]
