"""What recommendation lists look like by what is known of the items: how unlike, and how like the history.

- diversity_tags@k and diversity_vectors@k, intra-list diversity (Ziegler et al. 2005): 1 - the mean cosine of
  the pairs among a list's first k items, by their weighted tags or by the vectors that the log was prepared
  with. 0 is a list of items all alike. Items without tags (or a vector) are left out, and so are lists with
  fewer than two others; there is none for k = 1.
- calibration_kl@k (Steck 2018): sum over tags g of p(g) ln(p(g) / ((1 - a) q(g) + a p(g))) with a = 0.01, in
  nats. p is the mean share of the tags of the history's events, q that of the list's first k items; an item's
  columns share it alike, and so do the tags of a column. 0 is a list with the history's own shares, 4.6 one
  with none of its tags. Histories and lists without a tag are not counted.

Each is a mean over users.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.item_features import ItemFeatures
from recsys.evaluation.metrics import Floats
from recsys.evaluation.spans import Ints, chunk_rows, expand_spans

__all__ = ["FeatureLists"]

SMOOTHING = 0.01
"""Share of p in q, without which a list that lacks a tag of the history would be infinitely far off."""
_ROWS_AT_ONCE = 65_536


class FeatureLists:
    """Diversity and calibration, a value for each user, batch by batch.

    Args:
        features: tags, vectors or both.
        ks: cut-offs, rising.
    """

    def __init__(self, features: ItemFeatures, ks: Sequence[int]) -> None:
        self.ks = tuple(ks)
        self._tags = None if features.n_tags == 0 else _Tags(features)
        self._vectors = None if features.vectors is None else _Vectors(features.vectors)
        self._values: dict[str, list[Floats]] = {}

    def update(self, ids: Ints, history: tuple[Ints, Ints]) -> None:
        """Add lists and the histories that they answer.

        Args:
            ids: (R, K) int64, best first; -1 fills the end of a short list.
            history: (E,) int64 items of the events read for each list, end to end, and their (R+1,) offsets.
        """
        items, offsets = history
        for k in self.ks:
            lists = ids[:, :k]
            if self._tags is not None:
                # Rows at a time, so that a batch of long lists of many tags stays small.
                for rows in chunk_rows(np.full(len(ids), lists.shape[1] * self._tags.most)):
                    found = self._tags.shares(*_flat(lists[rows]), len(lists[rows]))
                    if k > 1:
                        self._add(f"diversity_tags@{k}", found.diversity())
                    bounds = offsets[rows.start : rows.stop + 1]
                    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
                    wanted = self._tags.shares(items[bounds[0] : bounds[-1]], owner, len(bounds) - 1)
                    self._add(f"calibration_kl@{k}", wanted.divergence(found))
            if self._vectors is not None and k > 1:
                for rows in chunk_rows(np.full(len(ids), lists.shape[1] * self._vectors.width)):
                    self._add(f"diversity_vectors@{k}", self._vectors.diversity(lists[rows]))

    def result(self) -> dict[str, float]:
        """The means by name, of the users that are counted; 0.0 where nobody is."""
        found = {}
        for name in sorted(self._values, key=lambda name: name.split("@")[0]):
            values = np.concatenate(self._values[name])
            counted = values[np.isfinite(values)]
            found[name] = float(counted.mean()) if len(counted) else 0.0
        return found

    def _add(self, name: str, values: Floats) -> None:
        self._values.setdefault(name, []).append(values)


class _Tags:
    """The tags of all items, each item's of length 1 as a vector and of sum 1 as shares."""

    def __init__(self, features: ItemFeatures) -> None:
        self.tags, self.offsets, self.n_tags = features.tags, features.tag_offsets, features.n_tags
        counts = np.diff(self.offsets)
        self.most = max(1, int(counts.max(initial=0)))
        squares = features.tag_weights.astype(np.float64) ** 2
        owner = np.repeat(np.arange(len(counts)), counts)
        # A tag weighs 1/sqrt(n) among the n of its column: squared, each column's tags come to 1.
        self.parts = squares / _sums(owner, squares, len(counts))[owner]

    def shares(self, items: Ints, owner: Ints, n_rows: int) -> "_Shares":
        """Sums of items by row: (E,) items and the rows that they belong to, in rising order."""
        starts, ends = self.offsets[items], self.offsets[items + 1]
        places, offsets = expand_spans(starts, ends)
        key = np.repeat(owner, np.diff(offsets)) * self.n_tags + self.tags[places]
        keys, where = np.unique(key, return_inverse=True)
        return _Shares(
            keys=keys,
            row=keys // self.n_tags,
            length=_sums(where, np.sqrt(self.parts[places]), len(keys)),
            share=_sums(where, self.parts[places], len(keys)),
            counted=np.bincount(owner[ends > starts], minlength=n_rows),
        )


class _Shares:
    """Sums over the items of each row, by (row, tag).

    Args:
        keys: (S,) int64 row x number of tags + tag, rising.
        row: (S,) int64.
        length: (S,) of the items' vectors of length 1.
        share: (S,) of the items' shares.
        counted: (R,) items of each row that have tags.
    """

    def __init__(self, *, keys: Ints, row: Ints, length: Floats, share: Floats, counted: Ints) -> None:
        self.keys, self.row, self.length, self.share, self.counted = keys, row, length, share, counted

    def diversity(self) -> Floats:
        """(R,) 1 - mean cosine of the pairs; NaN where there is none."""
        return _unlike(_sums(self.row, self.length**2, len(self.counted)), self.counted)

    def divergence(self, other: "_Shares") -> Floats:
        """(R,) KL divergence of the other's mean shares from these; NaN where either has none."""
        p = self.share / self.counted[self.row]
        q = np.zeros(len(p))
        if len(other.keys):
            place = np.minimum(np.searchsorted(other.keys, self.keys), len(other.keys) - 1)
            same = other.keys[place] == self.keys
            q[same] = other.share[place[same]] / other.counted[self.row[same]]
        terms = p * np.log(p / ((1 - SMOOTHING) * q + SMOOTHING * p))
        found = _sums(self.row, terms, len(self.counted))
        return np.where((self.counted > 0) & (other.counted > 0), found, np.nan)


class _Vectors:
    """The items' vectors and what brings each to length 1; 0 for an item without."""

    def __init__(self, vectors: NDArray[np.float16]) -> None:
        self.vectors, self.width = vectors, vectors.shape[1]
        blocks = range(0, len(vectors), _ROWS_AT_ONCE)
        norms = [np.linalg.norm(vectors[b : b + _ROWS_AT_ONCE].astype(np.float32), axis=1) for b in blocks]
        norm = np.concatenate(norms)
        self.scale = np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0)

    def diversity(self, ids: Ints) -> Floats:
        """(R,) of (R, k) lists."""
        place = np.maximum(ids, 0)
        scale = np.where(ids >= 0, self.scale[place], 0)
        total = (self.vectors[place] * scale[..., None]).sum(axis=1, dtype=np.float64)
        return _unlike((total**2).sum(axis=1), np.count_nonzero(scale, axis=1))


def _unlike(squared: Floats, counted: Ints) -> Floats:
    """1 - mean cosine of the pairs of n vectors of length 1, from the squared length of their sum."""
    pairs = counted * (counted - 1.0)
    found = np.full(len(pairs), np.nan)
    some = pairs > 0
    found[some] = 1 - (squared[some] - counted[some]) / pairs[some]
    return found


def _sums(where: Ints, values: Floats, n: int) -> Floats:
    """(n,) sums of the values at each place."""
    return np.bincount(where, values, n).astype(np.float64, copy=False)


def _flat(lists: Ints) -> tuple[Ints, Ints]:
    """The items of lists end to end, and the list of each."""
    there = lists >= 0
    return lists[there], np.nonzero(there)[0]
