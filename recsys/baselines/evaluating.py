"""A baseline ranked as encoders are."""

from collections.abc import Sequence
from typing import Any

from recsys.baselines.registry import baseline_name, fit_baseline
from recsys.datasets.prepared.store import SequenceStore
from recsys.evaluation.evaluate import evaluate_scores
from recsys.evaluation.protocol import Protocol
from recsys.evaluation.result import EvaluationResult
from recsys.evaluation.targets import Split
from recsys.evaluation.tie_orders import evaluate_orders


def evaluate_baseline(
    store: SequenceStore,
    config: Any,
    *,
    split: Split = "test",
    protocol: str | Protocol = "default",
    ks: Sequence[int] = (1, 5, 10, 20),
    seed: int = 0,
    progress: bool = False,
    tie_orders: int = 0,
    lists: bool = False,
) -> EvaluationResult:
    """Fit a baseline and rank every target of a split under it.

    Args:
        store: prepared data.
        config: its options; `baseline_configs` makes them of a name.
        split: "test" or "valid".
        protocol: a preset's name or a `Protocol`.
        ks: cut-offs.
        seed: of the bootstrap, of sampled negatives and of tie orders.
        progress: whether a bar may be drawn.
        tie_orders: orders of tied events to average over; 0 takes the file's.
        lists: whether to make top lists for coverage, novelty and what else lists tell.
    """
    fitted = fit_baseline(store, config)

    def ranked(log: SequenceStore) -> EvaluationResult:
        return evaluate_scores(
            fitted.on(log),
            log,
            split=split,
            protocol=protocol,
            ks=ks,
            seed=seed,
            progress=progress,
            lists=lists,
            encoder=baseline_name(config),
        )

    if not tie_orders:
        return ranked(store)
    return evaluate_orders(ranked, store, orders=tie_orders, split=split, protocol=protocol, seed=seed)
