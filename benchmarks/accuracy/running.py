"""One recipe with one seed: train or go on, test, and return what a record holds."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.accuracy.recipes import Recipe
from recsys.benchmarks.machine import stamp
from recsys.config import to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.errors import ConfigError
from recsys.evaluation.bootstrap import confidence_intervals
from recsys.evaluation.metrics import per_user_metrics
from recsys.evaluation.result import EvaluationResult
from recsys.files import replacing, write_json
from recsys.training.log_statistics import log_statistics

__all__ = ["KS", "RANKS_FILE", "read_ranks", "run_one", "train"]

KS = (1, 5, 10, 20)
RANKS_FILE = "ranks.npy"
_INTERVALS = ("hr@10", "ndcg@10", "mrr@10")


def run_one(
    recipe: Recipe,
    seed: int,
    store: SequenceStore,
    folder: Path,
    *,
    device: str,
    backend: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train if that is not done, test, write the ranks beside the run, and describe it all.

    Args:
        recipe: what to run.
        seed: one of its seeds.
        store: the prepared log.
        folder: of the run; what an interrupted run left there is gone on with.
        device: auto, cpu or cuda.
        backend: kernels to run on.
        say: told what happens.
    """
    session = _Session(folder)
    try:
        if recipe.is_baseline:
            facts, result, averaged = _baseline(recipe, store, say)
        else:
            model, facts = train(recipe, seed, store, folder, device=device, backend=backend, say=say)
            result = model.evaluate(ks=KS)
            orders = recipe.dataset.tie_orders
            averaged = model.evaluate(ks=(10,), tie_orders=orders) if orders else None
    except BaseException:
        if folder.exists():  # what is no run yet stays away
            session.end()
        raise
    session.end()
    _write_ranks(folder / RANKS_FILE, result)
    return {
        "recipe": recipe.id,
        "model": recipe.model,
        "preset": recipe.preset,
        "seed": seed,
        **stamp(),
        "dataset": {
            "name": recipe.dataset.name,
            "sha256": store.meta["source"]["sha256"],
            "users": store.n_users,
            "items": store.n_items,
            "events": store.n_events,
        },
        "configuration": recipe.configuration(seed),
        **facts,
        "peak_memory_mib": session.peak_mib,
        "sessions": session.count,
        "evaluation_seconds": result.seconds,
        "intervals": _intervals(result),
        "tie_orders": None if averaged is None else _averaged(averaged),
        "result": result.to_json(),
    }


def read_ranks(folder: Path) -> dict[str, Any] | None:
    """Users and their ranks under "kept" and "removed" as a run left them; None if it left none."""
    path = folder / RANKS_FILE
    if not path.exists():
        return None
    table = np.load(path, allow_pickle=False)
    return {"user": table[0], "kept": table[1], "removed": table[2]}


def train(
    recipe: Recipe,
    seed: int,
    store: SequenceStore,
    folder: Path,
    *,
    device: str,
    backend: str,
    say: Callable[[str], None],
) -> tuple[Any, dict[str, Any]]:
    """Train, or go on: the model and what its training was like; the test events are not looked at."""
    from recsys import Recommender

    settings = recipe.configuration(seed)
    if recipe.suited and (found := log_statistics(store)) != recipe.dataset.statistics:
        raise ConfigError(
            f"{recipe.dataset.name}/dataset.toml: [statistics] are not the log's; write {to_dict(found)}"
        )
    model = Recommender(
        recipe.model,
        preset=recipe.preset,
        encoder_options=settings["encoder"],
        training_options=settings["training"],
        device=device,
        backend=backend,
    )
    resume = (folder / "checkpoint" / "state.json").exists()
    model.fit(store, out=folder, resume=resume, quiet=False, notify=say)
    history = model.history_
    validated = [record for record in history if "valid" in record]
    best = max(validated, key=lambda record: float(record["valid"]["ndcg@10"]), default=None)
    rates = sorted(record["events_per_second"] for record in history)
    return model, {
        "parameters": sum(p.numel() for p in model.encoder_.parameters()),
        "epochs": len(history),
        "best_epoch": None if best is None else best["epoch"],
        "valid": None if best is None else best["valid"],
        "training_seconds": sum(record["seconds"] for record in history),
        "validation_seconds": sum(record.get("validation_seconds", 0.0) for record in history),
        "events_per_second_median": rates[len(rates) // 2],
    }


def _baseline(
    recipe: Recipe, store: SequenceStore, say: Callable[[str], None]
) -> tuple[dict[str, Any], EvaluationResult, EvaluationResult | None]:
    from recsys.baselines.registry import Baseline, baseline_configs, fit_baseline
    from recsys.config import to_dict
    from recsys.evaluation.evaluate import evaluate_scores
    from recsys.evaluation.tie_orders import evaluate_orders

    began = time.perf_counter()
    tried: list[dict[str, Any]] = []
    chosen: tuple[dict[str, Any], Baseline] | None = None
    for config in baseline_configs(recipe.model, recipe.floor):
        fitted = fit_baseline(store, config)
        found = evaluate_scores(fitted, store, split="valid", ks=(10,), progress=False, resamples=0)
        valid = found.metrics_seen_removed
        entry = {**to_dict(config), "valid": valid}
        tried.append(entry)
        say(f"{recipe.id}: {to_dict(config)} gives {valid['ndcg@10']:.4f} on the validation events")
        if chosen is None or valid["ndcg@10"] > chosen[0]["valid"]["ndcg@10"]:
            chosen = entry, fitted
        del fitted
    seconds = time.perf_counter() - began
    assert chosen is not None
    best, baseline = chosen
    result = evaluate_scores(baseline, store, ks=KS, progress=False, encoder=recipe.model)
    facts = {"tried": tried, "valid": best["valid"], "training_seconds": seconds}
    if not recipe.dataset.tie_orders:
        return facts, result, None

    def ranked(log: SequenceStore) -> EvaluationResult:
        return evaluate_scores(baseline.on(log), log, ks=(10,), progress=False, encoder=recipe.model)

    return facts, result, evaluate_orders(ranked, store, orders=recipe.dataset.tie_orders)


def _averaged(result: EvaluationResult) -> dict[str, Any]:
    """What a record keeps of the mean over tie orders."""
    return {
        **result.protocol["tie_orders"],
        "metrics_seen_kept": result.metrics_seen_kept,
        "metrics_seen_removed": result.metrics_seen_removed,
    }


def _intervals(result: EvaluationResult) -> dict[str, dict[str, tuple[float, float]]]:
    """95% intervals under both seen rules, from the same resamples of users."""
    found = {}
    for seen, ranks in result.ranks.items():
        users = per_user_metrics(ranks, None, (10,))
        chosen = {name: users[name] for name in _INTERVALS}
        found[seen] = confidence_intervals(chosen, np.random.default_rng(0))
    return found


def _write_ranks(path: Path, result: EvaluationResult) -> None:
    """Ranks of every user under both rules, (3, U) int32 with the users' indices first."""
    table = np.stack([result.user, result.ranks["kept"], result.ranks["removed"]]).astype(np.int32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, table, allow_pickle=False)


class _Session:
    """Peak of resident memory over all sessions of a run; one that is killed leaves nothing."""

    def __init__(self, folder: Path) -> None:
        from recsys.files import read_json

        self._path = folder / "sessions.json"
        known = read_json(self._path) if self._path.exists() else {}
        self.peak_mib: float | None = known.get("peak_memory_mib")
        self.count = int(known.get("sessions", 0))
        _reset_peak()

    def end(self) -> None:
        """Take in this session's peak."""
        peak = _peak_mib()
        if peak is not None:
            self.peak_mib = max(peak, self.peak_mib or 0.0)
        self.count += 1
        write_json(self._path, {"sessions": self.count, "peak_memory_mib": self.peak_mib})


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no Linux: the peak is then that of the process's whole life
        return


def _peak_mib() -> float | None:
    """Resident memory's peak, or on a GPU that of its allocator."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((x for x in status.splitlines() if x.startswith("VmHWM")), None)
    return None if line is None else int(line.split()[1]) / 1024
