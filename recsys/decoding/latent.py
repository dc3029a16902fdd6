"""Item vectors made of hidden states.

Light Latent-space Decoding (L2D, EMNLP 2025 Findings, arXiv:2509.11524): the memory holds pairs (h, v): the
state h of a training history and the item v that followed it. An item's latent vector is the mean of its
states (global aggregation); a user's state is matched with it by L2. No weight is trained. The method was
made for language models; here it is a second head for any encoder.

Mixed with the tied embedding e, an item scores (1 - w) q.e - w c |q - m|^2, up to a term in q alone: an inner
product of width d + 1, so every kind of index serves it. c brings both parts to one spread.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.errors import ArgumentError
from recsys.retrieval.filters import Ints

FAR = 3.0
"""Items without a state stand at so many times the longest state's length: farther than any with one."""
_ROOM = 1.25
"""Queries may be so many times longer than the longest state before a cold item could pass a warm one."""


@dataclass(frozen=True, slots=True, eq=False)
class Datastore:
    """Hidden states and the items that followed them: what a kNN language model calls a datastore.

    Attributes:
        states: (M, d) float32.
        items: (M,) int64, the item that followed each.
        n_items: catalog size V.
    """

    states: Tensor
    items: Ints
    n_items: int

    def __len__(self) -> int:
        return len(self.items)

    def capped(self, cap: int | None, seed: int = 0) -> "Datastore":
        """At most `cap` states of each item, drawn at random; None keeps all, and copies nothing."""
        if cap is None:
            return self
        kept = reservoir(self.items, cap, np.random.default_rng(seed))
        return Datastore(self.states[torch.from_numpy(kept)], self.items[kept], self.n_items)

    def counts(self) -> Ints:
        """(V,) int64 states of each item."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)

    def means(self) -> Tensor:
        """(V, d) float32 mean state of each item, summed in float64; zero where there is none."""
        sums = torch.zeros(self.n_items, self.states.shape[1], dtype=torch.float64)
        sums.index_add_(0, torch.from_numpy(self.items), self.states.double())
        counts = torch.from_numpy(self.counts()).clamp_min(1)
        return (sums / counts[:, None]).float()

    def longest(self) -> float:
        """Greatest Euclidean length of a state."""
        return float(self.states.norm(dim=1).max()) if len(self) else 0.0


def reservoir(items: NDArray[np.integer], cap: int | None, generator: np.random.Generator) -> Ints:
    """Choose at most `cap` places of each item, each set of them equally likely.

    Every place draws a key and an item keeps its smallest: the same sample as Vitter's reservoir (1985), in a
    form that parts of a log could draw apart and merge.

    Args:
        items: (N,) item at each place.
        cap: most places of an item; None keeps all.
        generator: source of the keys.

    Returns:
        (n,) int64 chosen places, ascending.

    Raises:
        ArgumentError: cap < 1.
    """
    if cap is None:
        return np.arange(len(items), dtype=np.int64)
    if cap < 1:
        raise ArgumentError(f"cap={cap} must be at least 1 state per item")
    order = np.lexsort((generator.random(len(items)), items))
    ordered = items[order]
    fresh = np.ones(len(ordered), dtype=np.bool_)
    fresh[1:] = ordered[1:] != ordered[:-1]
    firsts = np.flatnonzero(fresh)
    rank = np.arange(len(ordered)) - np.repeat(firsts, np.diff(np.append(firsts, len(ordered))))
    return np.sort(order[rank < cap]).astype(np.int64)


def latent_vectors(memory: Datastore) -> Tensor:
    """(V, d) item vectors for an L2 index: mean states.

    Items that followed no history have no place in this space: they stand far off, behind all others, so that
    they are answered only when nothing else is left.

    Raises:
        ArgumentError: the memory is empty.
    """
    if len(memory) == 0:
        raise ArgumentError("the memory holds no states: no training history has a next item")
    vectors = memory.means()
    cold = torch.from_numpy(memory.counts() == 0)
    vectors[cold] = 0
    vectors[cold, 0] = FAR * memory.longest()
    return vectors


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Embedding and latent scores in one inner product.

    Attributes:
        vectors: (V, d + 1) float32 item vectors.
        column: what a query carries in its last place.
    """

    vectors: Tensor
    column: float

    def queries(self, states: Tensor) -> Tensor:
        """(b, d + 1) queries of (b, d) states."""
        return with_column(states, self.column)


def with_column(states: Tensor, column: float) -> Tensor:
    """(b, d + 1) states with one more column."""
    return torch.cat([states, states.new_full((len(states), 1), column)], dim=1)


def spread_ratio(embedding: Tensor, memory: Datastore, states: Tensor) -> float:
    """c: standard deviation of the embedding's scores over that of the latent ones, for some states.

    Args:
        embedding: (V, d) float32.
        memory: of the training histories.
        states: (s, d) states to score.
    """
    warm = torch.from_numpy(memory.counts() > 0)
    means, wide = memory.means()[warm].double(), states.double()
    inner = wide @ embedding.double()[warm].T
    near = 2 * wide @ means.T - means.square().sum(dim=1)
    # Spread among items, for one user: what is common to all items moves no rank.
    return float(inner.std(dim=1).mean() / near.std(dim=1).mean().clamp_min(1e-12))


def mix(embedding: Tensor, memory: Datastore, weight: float, ratio: float) -> Mixture:
    """Mix the tied embedding and the latent vectors.

    Args:
        embedding: (V, d) float32.
        memory: of the training histories.
        weight: w, the share of the latent part, 0 to 1.
        ratio: c, from `spread_ratio`.

    Raises:
        ArgumentError: the weight is out of range or the memory is empty.
    """
    if not 0 <= weight <= 1:
        raise ArgumentError(f"weight={weight} must lie between 0 (embedding) and 1 (latent)")
    if len(memory) == 0:
        raise ArgumentError("the memory holds no states: no training history has a next item")
    means = memory.means().double()
    part = weight * ratio
    vectors = (1 - weight) * embedding.double() + 2 * part * means
    bias = -part * means.square().sum(dim=1)
    longest = memory.longest()
    cold = torch.from_numpy(memory.counts() == 0)
    if weight > 0 and bool(cold.any()):
        # Below what any item with states can score; the embedding of an item never trained on says nothing.
        least = (bias - _ROOM * longest * vectors.norm(dim=1))[~cold].min()
        vectors[cold] = 0
        bias[cold] = least
    # A query's last place is as long as the query: the bias then does not swell the vectors, and with them
    # the bound on rounding.
    column = max(longest, 1e-6)
    return Mixture(torch.cat([vectors, bias[:, None] / column], dim=1).float(), column)
