"""Full-ranking evaluation of an encoder under any item vectors."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.decoding.building import golden_states
from recsys.decoding.decoder import Decoder
from recsys.decoding.latent import with_column
from recsys.decoding.local_ranking import local_table
from recsys.encoders.base import SequenceEncoder
from recsys.errors import DataError
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden, summarize
from recsys.evaluation.metrics import check_ks
from recsys.evaluation.protocol import Protocol, get_protocol
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.spans import Ints
from recsys.evaluation.targets import EvaluationTargets, select_targets
from recsys.evaluation.tie_orders import evaluate_orders


def evaluate_decoder(
    encoder: SequenceEncoder,
    store: SequenceStore,
    decoder: Decoder | None,
    *,
    split: str,
    protocol: str | Protocol,
    ks: Sequence[int],
    seed: int,
    progress: bool,
    name: str,
    tie_orders: int = 0,
) -> EvaluationResult:
    """Rank every catalog item for every user of a split.

    Args:
        encoder: in evaluation mode.
        store: prepared data.
        decoder: what stands for the items; None for the tied embedding.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        seed: of the bootstrap and of sampled negatives.
        progress: whether a bar may be drawn.
        name: of the encoder in the report.
        tie_orders: orders of tied events to average over; 0 takes the file's.
    """
    if tie_orders:
        return evaluate_orders(
            lambda other: evaluate_decoder(
                encoder,
                other,
                decoder,
                split=split,
                protocol=protocol,
                ks=ks,
                seed=seed,
                progress=progress,
                name=name,
            ),
            store,
            orders=tie_orders,
            split=split,  # type: ignore[arg-type]
            protocol=protocol,
            seed=seed,
        )
    states = hidden_function(encoder, store)
    if decoder is not None and decoder.local is not None:
        return _evaluate_local(decoder, states, store, split, protocol, ks, seed, name)
    weight, hidden, bias_fn = encoder.item_vectors(), states, bias_function(encoder, store)
    if decoder is not None:
        # A bias is learned beside the embedding's scores: to the scores of other vectors it says nothing.
        bias_fn = bias_fn if decoder.decoding.vectors == "embedding" else None
        weight, column = decoder.ranking()

        def hidden(rows: Ints, targets: EvaluationTargets) -> Tensor:
            plain = states(rows, targets).float().cpu()
            return plain if column is None else with_column(plain, column)

    return evaluate_hidden(
        hidden,
        weight,
        store,
        bias_fn=bias_fn,
        split=split,  # type: ignore[arg-type]
        protocol=protocol,
        ks=ks,
        seed=seed,
        progress=progress,
        encoder=name,
    )


def _evaluate_local(
    decoder: Decoder,
    states: Any,
    store: SequenceStore,
    split: str,
    protocol: str | Protocol,
    ks: Sequence[int],
    seed: int,
    name: str,
) -> EvaluationResult:
    began = time.perf_counter()
    rules = get_protocol(protocol)
    targets = select_targets(
        store,
        split,  # type: ignore[arg-type]
        rules.targets,
        drop_seen_targets=rules.seen_targets == "dropped",
        min_events=rules.min_events,
    )
    if targets.n_users == 0:
        raise DataError(
            f"the {split} split has no user with a history and a target: prepare the log otherwise"
        )
    assert decoder.local is not None
    encoded = states(targets.first_rows, targets).float().cpu()
    table = local_table(decoder.local, encoded, targets, store, rules)
    generator = np.random.default_rng(seed)
    result = summarize(table, targets, store, rules, check_ks(ks), generator, seed=seed)
    result.encoder = name
    result.seconds = time.perf_counter() - began
    return result


def decoder_recall(
    decoder: Decoder, encoder: SequenceEncoder, store: SequenceStore, users: int, k: int
) -> float:
    """Which share of the k best items the index finds, over states of some users; 1.0 for an exact kind."""
    if decoder.index.exact or decoder.local is not None:
        return 1.0
    states = golden_states(encoder, store, users).numpy()
    return decoder.index.measure_recall(decoder.queries(states), min(k, decoder.index.n_items))
