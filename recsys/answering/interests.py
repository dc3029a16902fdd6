"""Several query vectors for one user: the last state, the same without the hour, and centres of recent ones.

One state must stand for all that a user may want next; a user of several interests is nearer to each of
them at some earlier event. With an interest clock the last state is read at the hour of the request, which
speaks for what is wanted near that hour; the same state without the hour speaks for what was going on before.
Source: multi-vector retrieval as in MIND (Li et al. 2019) and ComiRec (Cen et al. 2020), without their
training: the centres are k-means over states that the encoder gives anyway.
"""

import numpy as np
import numpy.typing as npt

from recsys.answering.arguments import whole_number
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.inference import CodeRows, encode_histories
from recsys.errors import ArgumentError
from recsys.jagged import flat_ranges

Array = npt.NDArray[np.int64]
States = npt.NDArray[np.float32]

RECENT = 50
"""Recent events whose states are grouped."""
MOST = 16
"""Most query vectors of a user."""
_ROUNDS = 10


def interest_states(
    encoder: SequenceEncoder,
    items: npt.NDArray[np.integer],
    timestamps: npt.NDArray[np.int64] | None,
    starts: Array,
    ends: Array,
    count: int,
    *,
    local_times: Array | None = None,
    at: Array | None = None,
    local_at: Array | None = None,
    event_codes: CodeRows | None = None,
    context: Array | None = None,
) -> tuple[States, Array]:
    """Query vectors of histories.

    Args:
        encoder: in evaluation mode.
        items: (N,) item indices of all histories.
        timestamps: (N,) unix seconds, or None.
        starts: (R,) int64.
        ends: (R,) int64; no history is empty.
        count: most vectors of a history, 1 to 16; the first is the last state, at the hour of the request
            where the encoder reads it; the second, with an interest clock, the same without the hour; the
            others are centres of the states after earlier events.
        local_times: (N,) local seconds, or None.
        at: (R,) unix seconds at which each answer is wanted, also by earlier states; None is the last time.
        local_at: (R,) local seconds of the same.
        event_codes: (N, E) codes of what came with the events and is known of their users, or None.
        context: (R, C) codes of what is known of each request, or None; read by earlier states, too.

    Returns:
        (s, d) float32 vectors, history after history, and (R+1,) int64 offsets.

    Raises:
        ArgumentError: count is out of range.
    """
    check_interests(count)

    def states(owner: Array, until: Array, *, clock: bool = True) -> States:
        found = encode_histories(
            encoder,
            items,
            timestamps,
            starts[owner],
            until,
            local_times=local_times,
            at=None if at is None else at[owner],
            local_at=None if local_at is None else local_at[owner],
            event_codes=event_codes,
            context=None if context is None else context[owner],
            clock=clock,
        )
        array: States = found.float().cpu().numpy()
        return array

    last = states(np.arange(len(starts)), ends)
    if count == 1:
        return last, np.arange(len(starts) + 1, dtype=np.int64)
    firsts = [last]
    if encoder.clock is not None:
        firsts.append(states(np.arange(len(starts)), ends, clock=False))
    left = count - len(firsts)
    # The states after each recent event but the last, which is a query already.
    before = np.minimum(ends - starts - 1, RECENT) if left else np.zeros_like(starts)
    places = flat_ranges(ends - before, ends)
    owner = np.repeat(np.arange(len(starts)), before)
    earlier = states(owner, places)
    bounds = np.concatenate(([0], np.cumsum(before)))
    parts = []
    for row in range(len(starts)):
        centres = centres_of(earlier[bounds[row] : bounds[row + 1]], left)
        parts.append(np.concatenate([*(first[row : row + 1] for first in firsts), centres]))
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return np.concatenate(parts or [last]), offsets


def check_interests(count: int) -> None:
    """Refuse a number of query vectors that no user can have.

    Raises:
        ArgumentError: it is not between 1 and 16.
    """
    if whole_number(count, "interests") > MOST:
        raise ArgumentError(f"interests = {count} must be between 1 and {MOST}")


def centres_of(states: States, count: int) -> States:
    """At most `count` centres of states by k-means.

    Begun at the most recent state and the farthest from those chosen: nothing is drawn.

    Args:
        states: (n, d), the most recent last; may be empty.
        count: centres wanted.

    Returns:
        (c, d) float32; fewer than wanted where fewer states differ.
    """
    if len(states) == 0 or count == 0:
        return states[:0]
    centres = states[-1:].astype(np.float64)
    wide = states.astype(np.float64)
    while len(centres) < min(count, len(states)):
        near = np.square(wide[:, None] - centres).sum(axis=2).min(axis=1)
        if near.max() <= 1e-12:
            break
        centres = np.concatenate([centres, wide[near.argmax()][None]])
    for _ in range(_ROUNDS):
        owner = np.square(wide[:, None] - centres).sum(axis=2).argmin(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, wide)
        sizes = np.bincount(owner, minlength=len(centres))
        moved = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres.astype(np.float32)
