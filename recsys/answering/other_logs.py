"""Another log under the item numbers of a run's catalog."""

import numpy as np

from recsys.answering.names import Names
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError


def on_catalog(store: SequenceStore, names: Names, encoder: SequenceEncoder | None = None) -> SequenceStore:
    """A log whose items are numbered as the run numbers them.

    Args:
        store: any log.
        names: of the run.
        encoder: that is to read the log; None if none is.

    Returns:
        The log itself if it has the run's vocabulary, else a view of it.

    Raises:
        ArgumentError: it holds items that the run does not know, so that no model of it could name them, or
            codes of columns that the encoder reads otherwise.
    """
    read = None if encoder is None else encoder.columns_digest
    own = None if store.event_columns is None else store.event_columns.digest
    if read not in (None, own):
        raise ArgumentError(
            f"{store.path}: its event columns are not those that the model was trained on, with the same "
            "values; evaluate on the run's own data"
        )
    if store.meta["ids"]["items"] == names.store.meta["ids"]["items"]:
        return store
    from recsys.datasets.prepared.vocabulary import item_vocabulary

    ids = item_vocabulary(store).ids
    numbers = names.items.encode(ids)
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        raise ArgumentError(
            f"{store.path}: {len(unknown)} of {store.n_items} items are not in the model's catalog, such as "
            f"{ids[int(unknown[0])]!r}; leave their events out of the log, or fit on it"
        )
    return store.renumbered(numbers, len(names.items))
