"""The moving average of the weights that is evaluated and kept.

Where a step touches some rows of the item table alone, so does the average: a row that rests moves towards
its weight by the product of the factors it missed, which is caught up when it is next touched or read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]

UPDATES = "updates/"
"""Prefix under which a checkpoint keeps how many updates a row of a lazy average has seen."""


class WeightAverage:
    """average <- f average + (1 - f) weight after each step, f = min(decay, (s + 1) / (s + 10)) at step s.

    A young average would be dominated by the random start, hence the ramp of f.

    Args:
        model: whose parameters are averaged.
        decay: above 0 and below 1; 0 keeps no average at all.
        lazy: name of the table whose steps touch some rows alone, or None.
    """

    def __init__(self, model: nn.Module, decay: float, lazy: str | None = None) -> None:
        self._model = model
        self._decay = decay
        self._lazy = lazy if decay else None
        self._average = {n: p.detach().clone() for n, p in model.named_parameters()} if decay else {}
        self._seen: Tensor | None = None
        if self._lazy is not None:
            table = self._average[self._lazy]
            self._seen = torch.zeros(len(table), dtype=torch.int64, device=table.device)
            ramp = max(0, int(np.ceil((10 * decay - 1) / (1 - decay))))
            steps = np.arange(ramp)
            factors = np.minimum(decay, (steps + 1) / (steps + 10))
            self._logarithms = torch.from_numpy(np.concatenate(([0.0], np.cumsum(np.log(factors)))))
            self._logarithms = self._logarithms.to(table.device)

    def __bool__(self) -> bool:
        """Whether there is an average."""
        return bool(self._average)

    def before_step(self, step: int, touched: Tensor | None) -> None:
        """Catch up rows that optimization step `step` (from 0) is about to change; None for all rows."""
        if self._lazy is not None and self._seen is not None:
            rows = torch.arange(len(self._seen), device=self._seen.device) if touched is None else touched
            self._average[self._lazy].index_copy_(0, rows, self._caught_up(rows, step))
            self._seen[rows] = step + 1  # this step's own update follows in after_step

    def after_step(self, step: int, touched: Tensor | None) -> None:
        """Take in the weights after optimization step `step`."""
        if not self._average:
            return
        factor = min(self._decay, (step + 1) / (step + 10))
        with torch.no_grad():
            parameters = dict(self._model.named_parameters())
            names = [n for n in self._average if n != self._lazy or touched is None]
            values: list[Tensor] = [parameters[n] for n in names]
            torch._foreach_lerp_([self._average[n] for n in names], values, 1 - factor)
            if self._lazy is not None and touched is not None:
                table, weight = self._average[self._lazy], parameters[self._lazy]
                table.index_copy_(0, touched, table[touched].lerp(weight[touched], 1 - factor))

    def values(self, step: int) -> dict[str, Tensor]:
        """The average after `step` optimization steps; the average itself stays as lazy as it is."""
        values = dict(self._average)
        if self._lazy is not None and self._seen is not None:
            rows = torch.arange(len(self._seen), device=self._seen.device)
            values[self._lazy] = self._caught_up(rows, step)
        return values

    @contextmanager
    def in_place(self, step: int) -> Iterator[None]:
        """Put the average after `step` optimization steps into the model for a while, if there is one."""
        if not self._average:
            yield
            return
        kept = {n: p.detach().clone() for n, p in self._model.named_parameters()}
        self._model.load_state_dict(self.values(step), strict=False)
        try:
            yield
        finally:
            self._model.load_state_dict(kept, strict=False)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        if self._seen is None or self._lazy is None:
            return dict(self._average)
        return {**self._average, UPDATES + self._lazy: self._seen}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        self._average = {n: t for n, t in state.items() if not n.startswith(UPDATES)}
        if self._lazy is not None:
            self._seen = state[UPDATES + self._lazy]

    def _caught_up(self, rows: Tensor, step: int) -> Tensor:
        """Rows of the lazy average after the updates up to `step` in which their weights rested."""
        assert self._lazy is not None
        assert self._seen is not None
        weight = self._model.get_parameter(self._lazy).detach()[rows]
        missed = self._log_factors(torch.full_like(rows, step)) - self._log_factors(self._seen[rows])
        left = missed.exp().to(weight.dtype)[:, None]
        return torch.lerp(weight, self._average[self._lazy][rows], left)

    def _log_factors(self, steps: Tensor) -> Tensor:
        """Logarithm of the product of the factors of steps 0 to steps - 1; float64."""
        ramp = len(self._logarithms) - 1
        beyond = (steps - ramp).clamp(min=0).to(torch.float64)
        return self._logarithms[steps.clamp(max=ramp)] + beyond * float(np.log(self._decay))
