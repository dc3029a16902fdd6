"""Recommendations that may hold what the user's window holds already, whose scores have a learned bias.

An index knows item vectors alone. The window's items are left out of the search, scored here with their bias,
and put beside what was found.
"""

import numpy as np
import numpy.typing as npt

from recsys.answering.queries import Array
from recsys.decoding.decoder import Decoder
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.window_bias import WindowBias
from recsys.retrieval.item_index import NeighborArrays
from recsys.retrieval.live import Version
from recsys.retrieval.merging import merge_best

__all__ = ["biased_window", "with_window"]


def biased_window(
    encoder: SequenceEncoder,
    decoder: Decoder,
    items: Array,
    starts: Array,
    ends: Array,
    local_times: Array | None = None,
    asked: Array | None = None,
) -> WindowBias | None:
    """The items of histories' windows with their biases.

    Args:
        encoder: of the histories.
        decoder: what answers.
        items: (N,) of all histories.
        starts: (R,).
        ends: (R,).
        local_times: (N,) local seconds of all events, for a bias that reads the clock.
        asked: (R,) local seconds of the requests, likewise.

    Returns:
        None where no bias is to be added: the encoder has none, or the decoder's vectors are not those that
        it was learned beside.

    Raises:
        ArgumentError: the bias reads the clock and times are missing.
    """
    if encoder.repeat_bias is None or decoder.decoding.vectors != "embedding":
        return None
    window = encoder.history_length
    return WindowBias(*encoder.repeat_bias.of_windows(items, starts, ends, window, local_times, asked))


def with_window(
    found: NeighborArrays,
    window: WindowBias,
    states: npt.NDArray[np.float32],
    groups: Array,
    decoder: Decoder,
    k: int,
    *,
    allow: Array | None = None,
    deny: Array | None = None,
    version: Version | None = None,
) -> NeighborArrays:
    """Put the windows' items beside the answers among all others.

    Args:
        found: (R, k) answers without them.
        window: of R requests.
        states: (s, d) query vectors, a request's together; the best of them scores an item.
        groups: (R+1,) int64 offsets of the requests' vectors.
        decoder: that gave the answers.
        k: answers of each request.
        allow: ids that may be returned at all.
        deny: ids that never are.
        version: of the catalog that was searched, where items came or went.
    """
    # An added item that a history may hold is answered only where the catalog has it.
    may = window.ids < decoder.index.n_items if version is None else np.ones(len(window.ids), dtype=np.bool_)
    for only in (allow, None if version is None else version.ids):
        if only is not None:
            may &= np.isin(window.ids, only)
    if deny is not None:
        may &= ~np.isin(window.ids, deny)
    owner = window.rows()
    pairs = np.flatnonzero(may)
    # As they are searched: an item may have been given another vector since the index was built.
    vectors = (version.vectors if version is not None else decoder.index.vectors_of)(window.ids[pairs])
    best = np.full(len(owner), -np.inf, dtype=np.float32)
    for place in range(int(np.diff(groups).max(initial=0))):
        has = groups[owner[pairs]] + place < groups[owner[pairs] + 1]
        queries = states[groups[owner[pairs[has]]] + place]
        products = np.einsum("pd,pd->p", queries, vectors[has])
        best[pairs[has]] = np.maximum(best[pairs[has]], products)
    # What may not be answered scores as the fillers do and goes with them.
    scores, ids = window.laid_out(np.where(may, best + window.bias, np.float32(-np.inf)))
    ids[np.isneginf(scores)] = -1
    return NeighborArrays(*merge_best([(found.scores, found.ids), (scores, ids)], k))
