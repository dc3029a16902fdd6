"""AdamW with decay on matrices alone, on touched rows where gradients are sparse, and the rate's course."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recsys.kernels.embedding import merge_rows
from recsys.kernels.lazy_adamw import update_rows
from recsys.training.config import TrainingConfig

# State-space parameters: decaying them would change the memory span (mamba-ssm excludes them too). The tables
# of attention's bias are biases, though they have two dimensions.
NEVER_DECAYED = ("A_log", "time_table", "position_table")


class RowAdamW(torch.optim.AdamW):
    """AdamW; a parameter whose gradient is sparse has only the rows of that gradient updated (lazy Adam).

    Moments and decay of rows that a step does not touch stay as they are, so that a step costs what the batch
    touches; `update_rows` says precisely. State has AdamW's names, so a run may change between the two.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters; gradients stay as they are, sparse ones merged."""
        held: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    parameter.grad = merge_rows(parameter.grad)
                    self._update_rows(parameter, group)
                    # AdamW refuses sparse gradients and passes over parameters without one.
                    held.append((parameter, parameter.grad))
                    parameter.grad = None
        super().step(closure)
        for parameter, gradient in held:
            parameter.grad = gradient

    def _update_rows(self, parameter: Tensor, group: dict[str, object]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] = state["step"].cpu() + 1
        assert parameter.grad is not None
        update_rows(
            parameter,
            state["exp_avg"],
            state["exp_avg_sq"],
            parameter.grad._indices()[0],
            parameter.grad._values(),
            step=int(state["step"]),
            learning_rate=group["lr"],  # type: ignore[arg-type]
            betas=group["betas"],  # type: ignore[arg-type]
            epsilon=group["eps"],  # type: ignore[arg-type]
            weight_decay=group["weight_decay"],  # type: ignore[arg-type]
        )


def make_optimizer(model: nn.Module, config: TrainingConfig) -> RowAdamW:
    """AdamW over the model's parameters in two groups, fused into one pass."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and name.rpartition(".")[2] not in NEVER_DECAYED
        (decayed if matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return RowAdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, global_step: int, done: float
) -> None:
    """Linear warm-up over ``warmup_steps``, then the schedule's course.

    Args:
        optimizer: whose groups are set.
        config: of the run.
        global_step: optimization steps taken before, from 0.
        done: share of all epochs that lies behind, from 0 to 1.
    """
    share = min(1.0, (global_step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        share *= 0.5 * (1 + math.cos(math.pi * done))
    elif config.schedule == "linear":
        share *= 1 - done
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * share


def touched_rows(table: Tensor) -> Tensor | None:
    """Rows of a table that its gradient, which is merged, changes; None for all."""
    gradient = table.grad
    if gradient is None or not gradient.is_sparse:
        return None
    table.grad = merge_rows(gradient)
    return table.grad._indices()[0]


def clip_gradients(
    model: nn.Module,
    largest: float,
    *,
    table: Tensor | None = None,
    table_norm: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Scale all gradients down to a common norm of at most ``largest``; sparse ones are merged first.

    Args:
        model: whose gradients these are.
        largest: norm that they may have.
        table: parameter of which other processes have rows, too.
        table_norm: gives the norm of all its rows, called with those of this process.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    sparse = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
    if not sparse and table is None:
        torch.nn.utils.clip_grad_norm_(parameters, largest)
        return
    values: list[Tensor] = []
    for parameter in parameters:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            parameter.grad = merge_rows(parameter.grad)
            values.append(parameter.grad._values())
        else:
            values.append(parameter.grad)
    norms = list(torch._foreach_norm(values))
    for i, parameter in enumerate(parameters):
        if parameter is table and table_norm is not None:
            norms[i] = table_norm(values[i])
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(values, factor)
