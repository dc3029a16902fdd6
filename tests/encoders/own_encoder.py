"""An encoder as somebody else would write it; tests copy it into packages of their own."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys import SequenceBatch, register_encoder
from recsys.encoders.base import EncoderConfig, SequenceEncoder
from recsys.kernels.pointwise import dropout


@dataclass(frozen=True, kw_only=True, slots=True)
class LastItemConfig(EncoderConfig):
    """Configuration of `LastItem`."""

    scale: float = 1.0
    """What the last item's vector is multiplied with."""


@register_encoder("last-item", config=LastItemConfig)
class LastItem(SequenceEncoder):
    """The state is the last item's vector."""

    causal = True

    def encode(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        return dropout(self.item_embedding(batch.items) * self.config.scale, self.config.dropout, generator)

    def encode_start(self, n: int) -> None:
        return None

    def encode_step(
        self,
        state: Any,
        items: Tensor,
        timestamps: Tensor | None = None,
        local_times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        return self.item_embedding(items) * self.config.scale, None
