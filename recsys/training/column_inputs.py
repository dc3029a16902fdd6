"""The columns of events that an encoder may read, from a prepared dataset."""

from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.event_columns import ColumnInputs

__all__ = ["column_inputs"]


def column_inputs(store: SequenceStore) -> ColumnInputs | None:
    """The columns of a log's events and requests; None where it keeps none."""
    columns = store.event_columns
    if columns is None:
        return None
    events, requests, users = (
        tuple((column.name, column.n_codes) for column in role)
        for role in (columns.events, columns.requests, columns.users)
    )
    return ColumnInputs(events=events, requests=requests, digest=columns.digest, users=users)
