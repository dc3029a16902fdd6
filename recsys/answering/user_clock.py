"""What the interest clock has gathered of one user: how much each category, or item, weighs at each hour."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from recsys.answering.names import Names
from recsys.answering.queries import of_users
from recsys.datasets.times.local_times import require_local_times
from recsys.encoders.clock import DEGREE
from recsys.errors import ArgumentError, DataError
from recsys.kernels.clock import ClockState, clock_read, clock_state

if TYPE_CHECKING:
    from recsys.datasets.prepared.store import SequenceStore
    from recsys.encoders.base import SequenceEncoder

Floats = NDArray[np.float64]
HOURS = 24
OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class UserClock:
    """A user's clock, read at the 24 full hours that follow the last event.

    Attributes:
        user: raw id.
        kind: "category", or "item" where the catalog has no categories.
        labels: C names, most pooled over the day first, "other" last if there is more.
        shares: (24, C) by local hour: share of what the clock pools then that events of the label have. With
            `prior` they add up to one.
        prior: (24,) share of the prior that the model learned for everyone: near one where the user has next
            to nothing near the hour.
        events: number of events that were read.
    """

    user: Any
    kind: str
    labels: list[str]
    shares: Floats
    prior: Floats
    events: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values only."""
        return {
            "user": self.user,
            "kind": self.kind,
            "events": self.events,
            "labels": self.labels,
            "hours": [
                {"hour": hour, "prior": float(self.prior[hour]), "shares": self.shares[hour].tolist()}
                for hour in range(HOURS)
            ],
        }


def read_user_clock(
    encoder: "SequenceEncoder", store: "SequenceStore", user: Any, *, most: int = 6
) -> UserClock:
    """Read a user's clock from its own sums: one pass over the events, then 24 reads.

    Args:
        encoder: with the interest clock, whose learned widths, decay and prior weight are read.
        store: the prepared log.
        user: raw id of a user of the log.
        most: labels to tell apart; the rest is "other".

    Raises:
        ArgumentError: the encoder has no interest clock, or most < 1.
        ConfigError: the log has no local hours.
        UnknownIdError: nobody has this id.
    """
    clock = encoder.clock
    if clock is None:
        raise ArgumentError("this model has no interest clock: train one with clock=True")
    if most < 1:
        raise ArgumentError(f"most = {most} must be at least 1")
    require_local_times(store)
    names = Names(store)
    queries = of_users([user], store, names.users, "raise")
    items, local = queries.items[-encoder.history_length :], queries.local_times
    assert local is not None
    local = local[-encoder.history_length :]
    kind, labels, shares = _shares(names, items)
    values = torch.from_numpy(np.concatenate((shares, np.ones((len(items), 1))), axis=1))
    first = -(-(int(local[-1]) + 1) // 3600) * 3600
    asked = torch.arange(first, first + HOURS * 3600, 3600)
    with torch.no_grad():
        rate, coefficients = clock.rate.cpu(), clock.coefficients.cpu()
        offsets = torch.tensor([0, len(items)], dtype=torch.int32)
        state = clock_state(values.float(), torch.from_numpy(local), offsets, DEGREE, rate)
        every = ClockState(state.sums.expand(HOURS, -1, -1), state.times.expand(HOURS))
        sums = clock_read(every, asked, coefficients, rate).double().clamp_min(0.0).numpy()
        prior = float(clock.log_prior.exp())
    order = np.argsort(asked.numpy() // 3600 % HOURS)
    sums = sums[order]
    total = sums[:, -1:] + prior
    labels, pooled = _top(labels, sums[:, :-1] / total, most)
    return UserClock(user, kind, labels, pooled, prior / total[:, 0], len(items))


def _shares(names: Names, items: NDArray[np.int64]) -> tuple[str, list[str], Floats]:
    """Kind, C labels and (L, C) share of each label in each event; rows add up to at most one."""
    try:
        known, categories = names.categories
    except DataError:
        return "item", *_item_shares(names, items)
    belongs = np.zeros((len(items), len(known)))
    for number in range(len(known)):
        belongs[:, number] = np.isin(items, categories.items(number))
    shares = belongs / np.maximum(belongs.sum(axis=1, keepdims=True), 1)
    return "category", list(known), shares


def _item_shares(names: Names, items: NDArray[np.int64]) -> tuple[list[str], Floats]:
    rows, place = np.unique(items, return_inverse=True)
    titles = names.titles_of(rows)
    ids = names.items.decode(rows)
    shown = [
        str(i) if title is None else str(title)
        for i, title in zip(ids, [None] * len(rows) if titles is None else titles.to_list(), strict=True)
    ]
    return shown, np.eye(len(rows))[place]


def _top(labels: Sequence[str], shares: Floats, most: int) -> tuple[list[str], Floats]:
    """The labels with the greatest sums, and the rest as one."""
    order = np.argsort(-shares.sum(axis=0), kind="stable")
    order = order[shares.sum(axis=0)[order] > 0]
    kept, rest = order[:most], order[most:]
    found = [labels[place] for place in kept]
    if len(rest):
        return [*found, OTHER], np.concatenate(
            (shares[:, kept], shares[:, rest].sum(1, keepdims=True)), axis=1
        )
    return found, shares[:, kept]
