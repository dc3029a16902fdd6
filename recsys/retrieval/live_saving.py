"""A changing catalog on disk: the index as it was built, and what came and went since, kept apart.

An index of a million items is written once. Adding an item to the saved catalog writes the changes alone,
and the manifest that names them: killed at any moment, the catalog is the old one or the new.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from recsys.retrieval.bundle import amend_bundle
from recsys.retrieval.changes import Changes
from recsys.retrieval.item_index import ItemIndex
from recsys.retrieval.live import LiveIndex
from recsys.retrieval.saving import load_index, save_index


def save_live(live: LiveIndex, folder: str | Path, states: Tensor | None = None) -> str:
    """Write the first index and what changed since; an index already there is replaced as a whole.

    Args:
        live: the catalog; its items are numbered by the first index's rows.
        folder: where.
        states: (s, d) user states for golden queries.

    Returns:
        The name of the folder's state, for `amend_live`.

    Raises:
        RetrievalError: the folder holds something else, or cannot be written.
    """
    return save_index(live.first, folder, states, live.changes())


def amend_live(folder: str | Path, state: str, changes: Changes) -> str:
    """Write what changed into the folder of the first index, whose files stay as they lie.

    Args:
        folder: where `save_live` wrote, or `load_live` read.
        state: its name, as `save_live`, `load_live` or `amend_live` returned it.
        changes: all of them since the index was built, not only the newest.

    Returns:
        The name of the new state.

    Raises:
        RetrievalError: another process wrote there in between, or nobody can.
    """
    return amend_bundle(folder, state, "changes", None if changes.empty else changes.tensors())


def load_live(
    folder: str | Path,
    fingerprint: str | None = None,
    *,
    vocabulary: str | None = None,
    kind: str | None = None,
    **rebuilding: Any,
) -> tuple[LiveIndex, str]:
    """Open an index with what came and went since it was built.

    Args:
        folder: where it lies.
        fingerprint: as `ItemIndex.load`.
        vocabulary: as `ItemIndex.load`.
        kind: as `ItemIndex.load`.
        rebuilding: `rebuild_share` and `rebuild_least` of `LiveIndex`.

    Returns:
        The catalog, and the name of the folder's state for `amend_live`.

    Raises:
        RetrievalError: as `ItemIndex.load`.
    """
    index, changes, state = load_index(ItemIndex, folder, fingerprint, vocabulary, kind)
    return LiveIndex(index, changes=changes, **rebuilding), state
