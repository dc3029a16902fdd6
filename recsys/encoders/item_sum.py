"""What a window holds, summed: item vectors added to the hidden state, so that items call for their like.

The state after event i is

    hidden_i + sum over r of scale_r * s_ri / sqrt(n_ri),
    s_ri = sum over j <= i of exp(-r (i - j)) e_j,    n_ri = sum over j <= i of exp(-r (i - j)),

for two learned rates r, each with a learned scale, a number for each channel. Scored by the same table, a sum
gives every item its inner products with the items of the window, recent ones first: FISM's user vector
(Kabbur, Ning and Karypis 2013), to which the encoder adds what else their order says. On sparse logs, where
few events must teach an item both what it calls for and what calls for it, that is most of what can be
learned (docs/experiments.md); CORE (Hou et al. 2022, arXiv:2204.11067) builds states of such sums alone. Two
rates, because what was seen last counts more than any one rate can say.

Hidden items of a Cloze task are no part of the sum and do not count as events; nor are later events.

Shapes: N events, B sequences, D = d_model, R rates.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recsys.jagged import SequenceBatch
from recsys.kernels.clock import clock_sums
from recsys.kernels.clock.circle import DAY
from recsys.kernels.pointwise import dropout

__all__ = ["ItemSum", "SummedState"]

SCALE = 1.0
"""At the start; this and the rates were chosen on the validation events of beauty-s3rec-order."""

RATES = (0.05, 1.0)
"""At the start, per event."""


@dataclass(frozen=True, slots=True, eq=False)
class SummedState:
    """Streaming state of n users: the encoder's own, and the sums (n, R, D + 1) over all their events."""

    own: Any
    sums: Tensor


class ItemSum(nn.Module):
    """The sum of a window's item vectors, and its way into the hidden state.

    Args:
        width: D.
        n_items: V; mask tokens, whose indices begin at V, are not summed.
        max_length: most events of a sequence, which chooses the kernel's form.
        n_extra: mask tokens; indices behind them are items that came after training.
    """

    even: Tensor

    def __init__(self, width: int, n_items: int, max_length: int, n_extra: int = 0) -> None:
        super().__init__()
        self.n_items, self.n_extra, self.max_length = n_items, n_extra, max_length
        # Flat, as vectors are not decayed.
        self.scale = nn.Parameter(torch.full((len(RATES) * width,), SCALE))
        self.log_rates = nn.Parameter(torch.tensor(RATES).log())
        # A clock that weighs all hours alike, and takes an event for a day, sums so.
        self.register_buffer("even", torch.tensor([1.0, 0.0]), persistent=False)

    def sums(self, batch: SequenceBatch, vectors: Tensor) -> Tensor:
        """(N, R, D + 1) weighted sums up to each event, of its sequence's vectors (N, D) and of ones."""
        columns = self._columns(batch.items, vectors)
        # Counted without mask tokens: what was seen last is the latest event, whatever is hidden after it.
        seen = self._events(batch.items).to(torch.int64)
        total = seen.cumsum(0)
        first = torch.arange(len(seen), device=seen.device) - batch.positions()
        times = (total - (total - seen)[first]) * DAY
        parts = [
            clock_sums(
                columns,
                times,
                times,
                batch.offsets,
                coefficients=self.even,
                rate=log_rate.exp(),
                max_length=self.max_length,
            )
            for log_rate in self.log_rates
        ]
        return torch.stack(parts, dim=1)

    def add(
        self, hidden: Tensor, sums: Tensor, p: float = 0.0, generator: torch.Generator | None = None
    ) -> Tensor:
        """States (n, D) and what sums (n, R, D + 1) say, with dropout of probability p in training."""
        pooled = sums[..., :-1] / sums[..., -1:].clamp_min(1.0).sqrt()
        kept = dropout(pooled.flatten(1).to(hidden.dtype), p, generator)
        return hidden + (self.scale * kept).view(pooled.shape).sum(1)

    def initial_state(self, n: int) -> Tensor:
        """The sums of n users without events."""
        rates = len(self.log_rates)
        return self.scale.new_zeros(n, rates, len(self.scale) // rates + 1)

    def step(self, sums: Tensor, items: Tensor, vectors: Tensor) -> Tensor:
        """Take one event of each user: items (n,), their vectors (n, D)."""
        kept = torch.exp(-self.log_rates.exp())
        return sums * kept[:, None] + self._columns(items, vectors)[:, None]

    def _events(self, items: Tensor) -> Tensor:
        """Which of items (n,) are no mask tokens."""
        return (items < self.n_items) | (items >= self.n_items + self.n_extra)

    def _columns(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors with a column of ones, all zero for mask tokens."""
        there = self._events(items).to(vectors.dtype)[:, None]
        return torch.cat((vectors * there, there), dim=1)
