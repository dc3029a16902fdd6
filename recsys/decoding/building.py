"""Build a decoder: collect the memory, choose what validation can choose, index the vectors."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.decoding.datastore import collect_datastore
from recsys.decoding.decoder import Aggregate, Decoder, Decoding, Vectors, check_decoding, datastore_index
from recsys.decoding.latent import Datastore, latent_vectors, mix, spread_ratio
from recsys.decoding.local_latent import LocalLatent
from recsys.decoding.local_ranking import local_ndcgs
from recsys.decoding.validation import Validation
from recsys.encoders.base import SequenceEncoder
from recsys.errors import ArgumentError
from recsys.retrieval.item_index import ItemIndex

CAPS = (None, 128, 32, 8)
"""Most states of an item that are tried; None keeps all."""
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the latent part that are tried. The ends are "embedding" and "latent"."""
NEIGHBOURS = (10, 30, 100, 300, 1000)
"""Numbers of states that a local vector is made of that are tried."""
_WITHOUT_VALIDATION = {"weight": 0.3, "neighbours": 100}

Notify = Callable[[str], None]


def build_decoder(
    encoder: SequenceEncoder,
    store: SequenceStore,
    *,
    vectors: Vectors = "embedding",
    aggregate: Aggregate = "global",
    kind: str = "auto",
    options: Mapping[str, object] | None = None,
    fingerprint: str,
    vocabulary: str,
    seed: int = 0,
    notify: Notify | None = None,
) -> Decoder:
    """Build the index of a trained encoder.

    Args:
        encoder: in evaluation mode.
        store: the data it was trained on.
        vectors: what stands for the items.
        aggregate: of latent vectors.
        kind: of index.
        options: of the index.
        fingerprint: of the encoder.
        vocabulary: digest of the item ids.
        seed: of what is drawn.
        notify: told what was tried and chosen.

    Raises:
        ArgumentError: an unknown name, or no training history has a next item.
    """
    check_decoding(vectors, aggregate)
    embedding = encoder.item_vectors().float().cpu()
    common: dict[str, Any] = {"fingerprint": fingerprint, "vocabulary": vocabulary, "options": options}
    if vectors == "embedding":
        decoding = Decoding()
        index = ItemIndex.build(embedding, kind=kind, notes=asdict(decoding), **common)
        return Decoder(index, decoding)

    tell = notify or (lambda _: None)
    whole = collect_datastore(encoder, store, seed=seed)
    tell(f"Memory: {len(whole):,} states of {int((whole.counts() > 0).sum()):,} items")
    validation = Validation(encoder, store, seed)
    if vectors == "mixed":
        decoding = choose_mixture(embedding, whole, validation, seed, tell)
        memory = whole.capped(decoding.cap, seed)
        mixture = mix(embedding, memory, decoding.weight, decoding.ratio)
        notes = {**asdict(decoding), "column": mixture.column}
        index = ItemIndex.build(mixture.vectors, kind=kind, notes=notes, **common)
        return Decoder(index, decoding, column=mixture.column)

    decoding = choose_latent(whole, validation, seed, tell)
    memory = whole.capped(decoding.cap, seed)
    extra, states = {}, None
    if aggregate == "local":
        states = datastore_index(memory.states)
        decoding = choose_local(memory, states, decoding, validation, tell)
        extra = {"states": states.vectors, "items": torch.from_numpy(memory.items)}
    index = ItemIndex.build(
        latent_vectors(memory), kind=kind, metric="l2", notes=asdict(decoding), extra=extra, **common
    )
    local = None if states is None else LocalLatent(states, memory.items, index, decoding.neighbours)
    return Decoder(index, decoding, local=local)


def choose_latent(memory: Datastore, validation: Validation, seed: int, tell: Notify) -> Decoding:
    """Choose the cap of a global latent index by NDCG@10 on the validation events."""
    if not validation.possible:
        tell("No validation events: every state is kept")
        return Decoding(vectors="latent")
    best = Decoding(vectors="latent", ndcg=-1.0)
    nothing = torch.zeros(memory.n_items, memory.states.shape[1])
    for cap in _caps(memory):
        # The weight 1 of a mixture is the latent part alone.
        mixture = mix(nothing, memory.capped(cap, seed), 1.0, 1.0)
        ndcg = validation.ndcg(mixture.vectors, mixture.column)
        tell(f"latent, {_words(cap)}: NDCG@10 {ndcg:.4f} on validation")
        if ndcg > (best.ndcg or 0.0):
            best = replace(best, cap=cap, ndcg=ndcg)
    return best


def choose_mixture(
    embedding: Tensor, memory: Datastore, validation: Validation, seed: int, tell: Notify
) -> Decoding:
    """Choose the cap and the weight of a mixture by NDCG@10 on the validation events."""
    if not validation.possible:
        weight = float(_WITHOUT_VALIDATION["weight"])
        tell(f"No validation events: the latent part gets the weight {weight}")
        drawn = memory.states[: min(len(memory), 256)]
        return Decoding(vectors="mixed", weight=weight, ratio=spread_ratio(embedding, memory, drawn))
    best = Decoding(vectors="mixed", ndcg=-1.0)
    for cap in _caps(memory):
        kept = memory.capped(cap, seed)
        ratio = spread_ratio(embedding, kept, validation.sample())
        for weight in WEIGHTS:
            mixture = mix(embedding, kept, weight, ratio)
            ndcg = validation.ndcg(mixture.vectors, mixture.column)
            if ndcg > (best.ndcg or 0.0):
                best = replace(best, cap=cap, weight=weight, ratio=ratio, ndcg=ndcg)
    tell(f"mixed, {_words(best.cap)}, weight {best.weight}: NDCG@10 {best.ndcg:.4f} on validation")
    return best


def choose_local(
    memory: Datastore, states: ItemIndex, decoding: Decoding, validation: Validation, tell: Notify
) -> Decoding:
    """Choose the number of neighbours of a local index by NDCG@10 on the validation events.

    Args:
        memory: the states with their items.
        states: an index over the states.
        decoding: what was chosen before.
        validation: what decides.
        tell: told what was tried.
    """
    best = replace(decoding, aggregate="local", neighbours=int(_WITHOUT_VALIDATION["neighbours"]), ndcg=None)
    if not validation.possible:
        tell(f"No validation events: {best.neighbours} neighbours")
        return best
    behind = ItemIndex.build(latent_vectors(memory), kind="exact", metric="l2", fingerprint="")
    numbers = sorted({min(count, len(memory)) for count in NEIGHBOURS})
    local = LocalLatent(states, memory.items, behind, numbers[-1])
    for neighbours, ndcg in zip(numbers, local_ndcgs(local, numbers, validation), strict=True):
        tell(f"local, {neighbours} neighbours: NDCG@10 {ndcg:.4f} on validation")
        if best.ndcg is None or ndcg > best.ndcg:
            best = replace(best, neighbours=neighbours, ndcg=ndcg)
    return best


def _caps(memory: Datastore) -> list[int | None]:
    """Caps that take something away, and none."""
    most = int(memory.counts().max(initial=0))
    return [cap for cap in CAPS if cap is None or cap < most]


def _words(cap: int | None) -> str:
    return "every state" if cap is None else f"at most {cap} states of an item"


def golden_states(encoder: SequenceEncoder, store: SequenceStore, count: int = 16) -> Tensor:
    """(s, d) states of some users, evenly spaced, for an index's golden queries."""
    from recsys.evaluation.log_states import log_states

    first, last = (
        np.asarray(store.offsets[:-1], dtype=np.int64),
        np.asarray(store.offsets[1:], dtype=np.int64),
    )
    users = np.flatnonzero(last > first)
    users = users[np.unique(np.linspace(0, len(users) - 1, count).astype(np.int64))] if len(users) else users
    return log_states(encoder, store, first[users], last[users]).float().cpu()


def refuse_local(before: Decoder | None, aggregate: Aggregate) -> None:
    """Local vectors cannot follow a catalog that changes.

    Raises:
        ArgumentError: they are asked for although items came or went.
    """
    if aggregate == "local" and before is not None and _has_changed(before):
        raise ArgumentError(
            "items were added or removed, which local vectors cannot follow: take aggregate='global'"
        )


def carry_changes(before: Decoder | None, made: Decoder) -> None:
    """Let items that came or went do so in a new decoder, too."""
    if before is None or before.live is None or not _has_changed(before):
        return
    changes = before.live.changes()
    removed = np.setdiff1d(changes.gone, changes.ids)
    added = (changes.ids, changes.vectors) if len(changes.ids) else None
    if added is not None and made.decoding != before.decoding:
        warnings.warn(
            f"{len(changes.ids)} added or changed item(s) are left out, as their vectors are not of the new "
            "index's kind: add them again",
            stacklevel=3,
        )
        added = None
    if len(removed) or added is not None:
        made.changing().update(add=added, remove=removed)


def _has_changed(decoder: Decoder) -> bool:
    return decoder.live is not None and len(decoder.live.changes()) > 0
