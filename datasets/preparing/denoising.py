"""Training events that have nothing to do with the rest of what their user took (ConsRec's filter).

A user's items are joined where the cosine of their features lies above a threshold. Training events outside
the largest group of items that hang together are read no more, and predicted as before: what is validated
and tested is what it was.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.datasets.prepared.feature_vectors import feature_vectors
from recsys.datasets.prepared.item_features import ItemFeatures as StoredFeatures
from recsys.datasets.preparing.events import Events, keep_users
from recsys.datasets.preparing.item_features import catalog_features
from recsys.datasets.preparing.slates import next_kept
from recsys.datasets.reading.item_features import ItemFeatures
from recsys.datasets.splitting.parts import TRAIN, SplitBounds, bounds_of

__all__ = ["Denoised", "drop_noise", "noise"]

_AT_ONCE = 1_024
"""Items of a user that are compared with all others at once."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Denoised:
    """A log without its noise.

    Attributes:
        events: those that are read.
        bounds: where their parts begin.
        arrays: the others as `recsys.datasets.prepared.unread_events` describes them: training events that
            stand between two of their user's, and are to be predicted.
        facts: what meta.json shall say.
    """

    events: Events
    bounds: SplitBounds
    arrays: dict[str, NDArray[Any]]
    facts: dict[str, int]


def drop_noise(events: Events, features: ItemFeatures, threshold: float) -> Denoised:
    """Tell the noise among training events from what is read.

    An item that would be left without a training event keeps all of its own: it is validated and tested, too.

    Args:
        events: with the part of each, sorted by user, part and time.
        features: of the item file.
        threshold: cosine above which two items are joined.
    """
    assert events.parts is not None
    training = events.parts == TRAIN
    n_items = events.item_ids.len()
    counts = np.bincount(events.items[training], minlength=n_items)
    described = catalog_features(features, events.item_ids, counts)
    known = {"items": n_items, **described.facts}
    stored = StoredFeatures.of(Path(features.label), described.arrays, known)
    assert stored is not None
    places = np.flatnonzero(training)
    first = np.unique(events.users[places], return_index=True)[1]
    offsets = np.append(first, len(places))
    dropped = places[noise(events.items[places], offsets, feature_vectors(stored), threshold)]
    left = counts - np.bincount(events.items[dropped], minlength=n_items)
    dropped = dropped[left[events.items[dropped]] > 0]
    keep = np.ones(len(training), dtype=np.bool_)
    keep[dropped] = False
    kept = keep_users(events, keep)  # no item is left without an event, but those that never had one
    assert kept.parts is not None
    keys = kept.keys if kept.per_second is not None else None
    arrays = _unread(events, kept, keep, dropped)
    facts = {
        "noise_events": len(dropped),
        "noise_of_events": len(places),
        "unread_targets": len(arrays["unread"]),
    }
    bounds = bounds_of(kept.parts, kept.offsets(), keys)
    return Denoised(events=kept, bounds=bounds, arrays=arrays, facts=facts)


def _unread(
    events: Events, kept: Events, keep: NDArray[np.bool_], dropped: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Arrays of the dropped events that can be predicted."""
    assert kept.parts is not None
    before, may = next_kept(np.flatnonzero(keep), dropped, kept.offsets())
    may[may] = kept.parts[before[may]] == TRAIN
    values = events.values
    if values is not None and values.targets is not None:
        may &= values.targets[dropped]
    arrays: dict[str, NDArray[Any]] = {
        "unread": events.items[dropped[may]],
        "unread_before": before[may].astype(np.int64),
    }
    if values is not None and values.weights is not None:
        arrays["unread_weights"] = values.weights[dropped[may]]
    return arrays


def noise(
    items: NDArray[np.int32], offsets: NDArray[np.int64], vectors: NDArray[np.float32], threshold: float
) -> NDArray[np.bool_]:
    """Which events are of no largest group of their user's items.

    Items of which nothing is known are no noise, and nothing is where no two items are joined; of groups of
    the same size all stay.

    Args:
        items: (N,) int32, users one after the other.
        offsets: (U+1,) int64 first event of each user.
        vectors: (V, D) float32 of length 1, or 0 for an item of which nothing is known.
        threshold: cosine above which two items are joined.

    Returns:
        (N,) bool.
    """
    found = np.zeros(len(items), dtype=np.bool_)
    known: NDArray[np.bool_] = (vectors != 0).any(axis=1)
    for first, last in itertools.pairwise(offsets.tolist()):
        own, place = np.unique(items[first:last], return_inverse=True)
        compared = known[own]
        group = _groups(vectors[own[compared]], threshold)
        sizes = np.bincount(group)
        if len(sizes) < 2 or sizes.max() == 1:
            continue
        lost = np.zeros(len(own), dtype=np.bool_)
        lost[compared] = sizes[group] < sizes.max()
        found[first:last] = lost[place]
    return found


def _groups(vectors: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """(n,) the connected component of each vector, from 0."""
    group = np.full(len(vectors), -1, dtype=np.int64)
    number = 0
    left = np.arange(len(vectors))
    while len(left):
        reached, left = left[:1], left[1:]
        while len(reached):
            group[reached] = number
            near = np.zeros(len(left), dtype=np.bool_)
            for at in range(0, len(reached), _AT_ONCE):
                near |= (vectors[reached[at : at + _AT_ONCE]] @ vectors[left].T > threshold).any(axis=0)
            reached, left = left[near], left[~near]
        number += 1
    return group
