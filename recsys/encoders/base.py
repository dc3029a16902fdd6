"""What every encoder is: packed events in, one hidden state per event out, and a state to stream with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recsys.config import require
from recsys.encoders.items import HashedItemEmbedding, ItemEmbedding, make_item_embedding
from recsys.jagged import SequenceBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """What all encoders share."""

    d_model: int = 64
    """Width of item vectors and hidden states; 8 to 4096. 64 is the width of most published tables."""
    n_layers: int = 2
    """Number of blocks; 1 to 64."""
    dropout: float = 0.2
    """Probability of zeroing an activation in training; 0 up to (not including) 1."""
    max_length: int = 200
    """Events of a user that the encoder sees, the most recent ones; 1 to 65536."""
    item_hashes: int = 0
    """Hash functions by which an item is the sum of rows of a shared table, for catalogs beyond memory; 0
    gives each item a row of its own; 0 to 16."""
    item_buckets: int = 100_000
    """Rows of the shared table where item_hashes is above 0; 1 to 2147483647."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(8 <= self.d_model <= 4096, "encoder.d_model", self.d_model, "between 8 and 4096")
        require(1 <= self.n_layers <= 64, "encoder.n_layers", self.n_layers, "between 1 and 64")
        require(0 <= self.dropout < 1, "encoder.dropout", self.dropout, "at least 0 and below 1")
        require(1 <= self.max_length <= 65536, "encoder.max_length", self.max_length, "between 1 and 65536")
        require(0 <= self.item_hashes <= 16, "encoder.item_hashes", self.item_hashes, "between 0 and 16")
        require(
            1 <= self.item_buckets < 2**31, "encoder.item_buckets", self.item_buckets, "from 1 to 2147483647"
        )


class SequenceEncoder(nn.Module, ABC):
    """Base class of encoders: an item table and a map from packed events to hidden states.

    A hidden state scores the catalog by inner product with :attr:`item_weight`, so that training,
    ranking and nearest-neighbour search use one table.

    Attributes:
        causal: True when the state of an event depends on no later event. Causal encoders train on the
            next item, others by Cloze.
        n_extra_items: rows of the item table beyond the catalog (BERT4Rec's mask token).
    """

    causal: ClassVar[bool]
    n_extra_items: ClassVar[int] = 0

    def __init__(self, config: EncoderConfig, n_items: int) -> None:
        super().__init__()
        require(n_items >= 1, "n_items", n_items, "at least 1")
        self.config: Any = config
        self.n_items = n_items
        self.item_embedding = make_item_embedding(
            n_items, self.n_extra_items, config.d_model, config.item_hashes, config.item_buckets
        )

    @property
    def item_weight(self) -> Tensor:
        """(V, D) item vectors, tied to the input embedding; of hashed items made anew at each call."""
        return self.item_embedding.vectors(self.n_items)

    def item_vectors(self) -> Tensor:
        """(V, D) item vectors for ranking and search, without gradients."""
        with torch.no_grad():
            return self.item_weight.detach()

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        return self.item_embedding.weight.device

    @property
    def history_length(self) -> int:
        """Most recent events of a user that :meth:`user_state` takes."""
        return int(self.config.max_length)

    @property
    def needs_timestamps(self) -> bool:
        """Whether every event must come with its time."""
        return False

    @abstractmethod
    def forward(self, batch: SequenceBatch, *, generator: torch.Generator | None = None) -> Tensor:
        """Encode packed sequences.

        Args:
            batch: N events of B sequences, none longer than ``config.max_length``.
            generator: source of dropout in training mode; the same state gives the same masks.

        Returns:
            (N, D) hidden state after each event.
        """

    def user_state(self, batch: SequenceBatch) -> Tensor:
        """(B, D) the state that scores what comes next for each sequence; no sequence may be empty."""
        return self.forward(batch)[batch.last_rows()]

    @abstractmethod
    def initial_state(self, n: int) -> Any:
        """The streaming state of ``n`` users without history."""

    @abstractmethod
    def step(self, state: Any, items: Tensor, timestamps: Tensor | None = None) -> tuple[Tensor, Any]:
        """Take one more event of each of the n users of ``state``.

        Args:
            state: from :meth:`initial_state` or an earlier step; it is not to be used again afterwards.
            items: (n,) int64 item indices.
            timestamps: (n,) int64 unix seconds, for encoders that read the time.

        Returns:
            (n, D) what :meth:`user_state` gives for the history so far, and the new state.
        """

    def initialize(self, generator: torch.Generator) -> None:
        """Draw all weights from ``generator``: normal with deviation 0.02, biases zero, norms one.

        0.02 is BERT's and Mamba4Rec's. Encoders with parameters of another kind extend this.
        """
        for module in self.modules():
            if isinstance(module, ItemEmbedding | HashedItemEmbedding):
                module.initialize(generator)
            elif isinstance(module, nn.Linear | nn.Embedding):
                with torch.no_grad():
                    module.weight.normal_(0.0, 0.02, generator=generator)
                    if isinstance(module, nn.Linear) and module.bias is not None:
                        module.bias.zero_()


def dropout(x: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Dropout drawn from ``generator``; the identity when there is none or the probability is 0."""
    if generator is None or probability == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - probability, generator=generator)
    return x * keep.mul_(1 / (1 - probability))
