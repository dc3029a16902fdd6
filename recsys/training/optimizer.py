"""AdamW with decay on matrices alone, and the learning rate's warm-up."""

import torch
from torch import nn

from recsys.training.config import TrainingConfig

# State-space parameters: decaying them would change the memory span (mamba-ssm excludes them too). The tables
# of attention's bias are biases, though they have two dimensions.
NEVER_DECAYED = ("A_log", "time_table", "position_table")


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
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
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: TrainingConfig, global_step: int) -> None:
    """Linear warm-up over ``warmup_steps``, constant after; ``global_step`` counts from 0."""
    share = min(1.0, (global_step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * share
