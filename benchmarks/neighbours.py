"""What neighbours are worth: inputs replaced, noise not read, views and users contrasted.

    python -m recsys.benchmarks.neighbours LOG ITEMS [--tags category] --out FILE [--epochs 14] [--seed 0]

LOG and ITEMS are files of interactions and of items. SASRec, small and by the sampled softmax, is trained in
each way with as many steps; ways that take longer a step are set beside plain training of the same processor
time, too, and denoising beside the longest of these. The contrast is SRA-CL's in a reduced form, a prototype
that lives here alone: of two views of a batch in each of which a fifth of the items gives way to items alike
by their tags, the last states of a user are each other's targets among the batch's; and the last state of a
user is the target of the mean of those whose items are alike. `--denoise` is ConsRec's filter. Test figures
of all users, paired by bootstrap.
A FILE that is there keeps its other logs and seeds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys import prepare
from recsys.benchmarks.machine import stamp
from recsys.datasets.prepared.feature_vectors import feature_vectors
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config, preset
from recsys.encoders.base import SequenceEncoder
from recsys.evaluation.bootstrap import paired_difference
from recsys.evaluation.encoder_functions import bias_function, hidden_function
from recsys.evaluation.evaluate import evaluate_hidden
from recsys.evaluation.result import EvaluationResult
from recsys.files import read_json, write_json
from recsys.kernels.cross_entropy import linear_cross_entropy
from recsys.training.config import TrainingConfig
from recsys.training.item_neighbours import item_neighbours
from recsys.training.prepared_batches import Prepared
from recsys.training.substitution import Substitution
from recsys.training.trainer import Trainer

__all__ = ["ContrastTrainer", "main"]

ENCODER = {"d_model": 32, "n_layers": 1, "max_length": 20, "repeat_bias": 0}
TRAINING = {
    "loss": "sampled_softmax",
    "negatives": 512,
    "batch_events": 4096,
    "learning_rate": 3e-3,
    "ema_decay": 0.99,
}
SHARE, WEIGHT, TEMPERATURE, USERS = 0.2, 0.1, 1.0, 5
"""Share of items that give way and weight of a contrast, as SRA-CL has them; temperature; users averaged."""

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "substitute, features": {"substitute": SHARE, "substitute_by": "features"},
    "substitute, beside": {"substitute": SHARE, "substitute_by": "beside"},
    "denoise": {"denoise": 0.3},
    "contrast, items": {"contrast": (True, False)},
    "contrast, users": {"contrast": (False, True)},
    "contrast, both": {"contrast": (True, True)},
}


class ContrastTrainer(Trainer):
    """A trainer whose loss has SRA-CL's contrasts beside it.

    Args:
        encoder: to be trained.
        store: prepared with features of items.
        config: of the training.
        items: whether two views of a batch are contrasted.
        users: whether users of a batch are drawn to those alike.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        store: SequenceStore,
        config: TrainingConfig,
        *,
        items: bool,
        users: bool,
    ) -> None:
        super().__init__(encoder, store, config)
        self._views = Substitution(SHARE, item_neighbours(store, "features")) if items else None
        self._vectors = torch.from_numpy(feature_vectors(store.item_features)) if users else None  # type: ignore[arg-type]

    def _loss_of(self, prepared: Prepared) -> Tensor:
        loss = super()._loss_of(prepared)
        task, batch = prepared.task, prepared.task.batch
        # As `Trainer._loss_of`, whose states are not handed out: one more pass, by the same dropout.
        if self._views is not None:
            seeds = np.random.SeedSequence(prepared.seed).spawn(2)
            a, b = (
                self.encoder(self._views(task, one).batch, generator=self._generator)[batch.last_rows()]
                for one in seeds
            )
            loss = loss + WEIGHT * _contrast(a, b)
        if self._vectors is not None:
            states = self.encoder(batch, generator=self._generator)[batch.last_rows()]
            own = functional.normalize(
                torch.zeros(batch.batch_size, self._vectors.shape[1]).index_add_(
                    0,
                    torch.from_numpy(np.repeat(np.arange(batch.batch_size), batch.lengths)),
                    self._vectors[batch.items],
                ),
                dim=1,
            )
            near = (own @ own.T).fill_diagonal_(-1).topk(min(USERS, batch.batch_size - 1)).indices
            loss = loss + WEIGHT * _contrast(states, states[near].mean(1))
        return loss


def _contrast(a: Tensor, b: Tensor) -> Tensor:
    """Each row of one is the target of the same row of the other, among all rows."""
    targets = torch.arange(len(a))
    one = linear_cross_entropy(a, b, targets, temperature=TEMPERATURE)
    other = linear_cross_entropy(b, a, targets, temperature=TEMPERATURE)
    return (one + other) / 2


def trained(
    store: SequenceStore, epochs: int, seed: int, way: dict[str, Any]
) -> tuple[EvaluationResult, dict[str, Any]]:
    """Train in one way and evaluate: the result, steps and seconds of processor time."""
    chosen = preset("sasrec", "tuned")
    settings = encoder_config("sasrec", {**chosen["encoder"], **ENCODER})
    encoder = build_encoder("sasrec", store.n_items, settings, seed=seed)
    given = {name: value for name, value in way.items() if name.startswith("substitute")}
    config = TrainingConfig(
        **{**chosen["training"], **TRAINING, **given, "epochs": epochs, "seed": seed, "label_smoothing": 0.0}
    )
    if "contrast" in way:
        items, users = way["contrast"]
        trainer: Trainer = ContrastTrainer(encoder, store, config, items=items, users=users)
    else:
        trainer = Trainer(encoder, store, config)
    start = time.process_time()
    progress = trainer.run()
    seconds = time.process_time() - start
    result = evaluate_hidden(
        hidden_function(encoder, store),
        encoder.item_vectors(),
        store,
        bias_fn=bias_function(encoder, store),
        ks=(10,),
        progress=False,
        seed=seed,
    )
    facts = {"epochs": epochs, "steps": progress.global_step, "seconds": seconds}
    return result, facts


def _paired(result: EvaluationResult, against: EvaluationResult) -> dict[str, float]:
    """How far NDCG@10 lies above that of another training, and the p of that by paired bootstrap."""
    # Not by `compare`, which refuses results of two logs: without noise it is another, of the same targets.
    a, b = (one.per_user["ndcg@10"] for one in (result, against))
    assert np.array_equal(result.user, against.user)
    test = paired_difference(a, b, np.random.default_rng(0))
    return {"difference": float((a - b).mean()), "p": test.p_value}


def measured(
    name: str, found: tuple[EvaluationResult, dict[str, Any]], against: EvaluationResult | None
) -> dict[str, Any]:
    """One line of the record."""
    result, facts = found
    line = {"way": name, **facts, "hr@10": result["hr@10"], "ndcg@10": result["ndcg@10"]}
    if against is not None:
        line |= _paired(result, against)
    print(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()},
        flush=True,
    )
    return line


def main() -> None:
    """Train, compare, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("items", type=Path)
    parser.add_argument("--tags", default="category")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = options.log.parent.name
    before = read_json(options.out)["runs"] if options.out.exists() else []
    others = [run for run in before if (run["log"], run["seed"]) != (name, options.seed)]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="recsys-") as scratch:
        given: dict[str, Any] = {"items": options.items, "item_tags": options.tags}
        read = prepare(options.log, Path(scratch) / "read", **given)
        denoised = prepare(options.log, Path(scratch) / "denoised", denoise=0.3, **given)
        facts = {
            key: denoised.meta["counts"][key] for key in ("noise_events", "noise_of_events", "unread_targets")
        }
        trained(read, 1, options.seed, WAYS["contrast, both"])  # compiles
        plain = trained(read, options.epochs, options.seed, {})
        lines.append(measured("plain", plain, None))
        steps, seconds = plain[1]["steps"], plain[1]["seconds"]
        share = 1 - facts["noise_events"] / facts["noise_of_events"]
        longest = plain

        def write() -> None:
            run = {"log": name, "seed": options.seed, "steps": steps, "noise": facts, "ways": lines}
            about = {"machine": stamp(), "encoder": ENCODER, "training": TRAINING}
            write_json(options.out, {**about, "runs": [*others, run]})

        for way, settings in WAYS.items():
            if way == "plain":
                continue
            store, epochs = read, options.epochs
            if "denoise" in settings:  # fewer events are read, so an epoch has fewer steps
                store = denoised
                epochs = round(options.epochs / share)
            found = trained(store, epochs, options.seed, settings)
            lines.append(measured(way, found, plain[0]))
            longer = round(options.epochs * found[1]["seconds"] / seconds)
            if longer > 1.15 * options.epochs:
                of_time = trained(read, longer, options.seed, {})
                lines.append(measured(f"plain, as long as {way}", of_time, None))
                lines[-2]["of_time"] = _paired(found[0], of_time[0])
                longest = max(longest, of_time, key=lambda one: int(one[1]["steps"]))
            write()
        if longest is not plain:
            found = trained(denoised, round(longest[1]["epochs"] / share), options.seed, WAYS["denoise"])
            lines.append(measured("denoise, as long as the longest", found, longest[0]))
            write()


if __name__ == "__main__":
    main()
