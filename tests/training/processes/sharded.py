"""Small trainings whose item table lies in rows over the processes, and what each of these holds and sends.

    python -m tests.training.processes.sharded OUT RUNS CASE:ACCUMULATE...

Each process writes what it came to as JSON into ``OUT-RANK``. RUNS has what one process has stopped. The case
"fit" is a run that is trained into a folder there.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.encoders.items import ShardedItemEmbedding, making_rows
from recsys.errors import ArgumentError
from recsys.recommender import Recommender
from recsys.training.config import TrainingConfig
from recsys.training.item_files import is_of_rows
from recsys.training.processes import Processes, joined
from recsys.training.trainer import Trainer
from recsys.training.validating import validation_metrics
from tests.conftest import random_log
from tests.training.processes.cases import QUICK, SMALL, StoppedError, Stopping

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sasrec, clipped": ("sasrec", {"loss": "sampled_softmax", "gradient_clip": 0.05}),
    "bert4rec, not clipped": ("bert4rec", {"loss": "sampled_softmax", "gradient_clip": 0.0}),
    "mamba, bce": ("mamba", {"loss": "bce", "negatives": 1, "weight_decay": 0.01, "select": "hr@3"}),
    "sasrec, full": ("sasrec", {"loss": "full", "label_smoothing": 0.1, "temperature": 0.7}),
}
"""Encoder and training options by a name."""

STOPPED = ", stopped"
"""Behind the name of a case that is stopped within an epoch and taken up."""


class Counting:
    """Processes that count the bytes which are handed to `exchange`, those for the process itself too."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.bytes: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processes, name)

    def exchange(self, parts: Sequence[Tensor], lengths: Sequence[int] | None = None) -> list[Tensor]:
        """As the processes'."""
        self.bytes.append(sum(part.numel() * part.element_size() for part in parts))
        return self._processes.exchange(parts, lengths)


def made_store(folder: Path) -> SequenceStore:
    """A log of 60 users over 31 items, which no number of processes here divides."""
    return prepare(random_log(users=60, items=31, seed=5), folder)


def made_trainer(
    case: str, accumulate: int, store: SequenceStore, processes: Processes, **more: Any
) -> Trainer:
    """A trainer that looks for a checkpoint to write after every step."""
    name, training = CASES[case]
    rows: Any = contextlib.nullcontext()
    if processes.size > 1 and case.startswith("sasrec"):  # others cut their rows out of a whole table
        rows = making_rows(processes.rank, processes.size)
    quick = {**QUICK, "batch_events": 88, "shard_items": True}  # 13 or 14 batches: some groups are short
    config = TrainingConfig(**{**quick, **training, "accumulate": accumulate, **more})
    with rows:
        encoder = build_encoder(name, store.n_items, encoder_config(name, SMALL))
    return Trainer(
        encoder,
        store,
        config,
        validate=validation_metrics(store, config, processes),
        checkpoint_seconds=0.0,
        processes=processes,
    )


def outcome(trainer: Trainer) -> dict[str, Any]:
    """What a training came to: losses, metrics, and of an encoder with the whole table its weights."""
    progress, digest = trainer.progress, hashlib.sha256()
    whole = not isinstance(trainer.encoder.item_embedding, ShardedItemEmbedding)
    if whole:
        for value in trainer.encoder.state_dict().values():
            digest.update(value.detach().contiguous().numpy().tobytes())
    told = ("epoch", "loss", "valid", "validation_loss")
    history = [{name: record[name] for name in told if name in record} for record in progress.history]
    return {
        "history": history,
        "steps": progress.global_step,
        "best": [progress.best, progress.best_epoch],
        "weights": digest.hexdigest() if whole else None,
    }


def stopped(trainer: Trainer, folder: Path) -> None:
    """Train into a folder and stop within the second epoch."""
    trainer.reporter, trainer.folder = Stopping(), None if trainer._processes.rank else folder
    with contextlib.suppress(StoppedError):
        trainer.run()


def held(trainer: Trainer) -> dict[str, list[int]]:
    """Rows and bytes, as they lie in memory, of all tensors with rows of the item table."""
    rows = {name: t for name, t in trainer.tensors().items() if is_of_rows(name, t)}
    return {name: [len(t), t.untyped_storage().nbytes()] for name, t in rows.items()}


def sharded(case: str, accumulate: int, store: SequenceStore, processes: Processes, runs: Path) -> Any:
    """Train one case; on request stopped and taken up, and taken up where one process has stopped."""
    if not case.endswith(STOPPED):
        trainer = made_trainer(case, accumulate, store, processes)
        trainer.run()
        found: dict[str, Any] = {"at once": outcome(trainer)}
        if processes.rank:
            try:
                trainer.encoder.item_vectors()
            except ArgumentError as error:
                found["asked"] = str(error)
        return found
    case = case.removesuffix(STOPPED)
    here = runs / f"stopped-{processes.size}"
    trainer = made_trainer(case, accumulate, store, processes)
    stopped(trainer, here)
    found = {"held": held(trainer)}
    for name, folder in (("stopped here", here), ("stopped on one process", runs / "stopped-1")):
        again = made_trainer(case, accumulate, store, processes)
        again.restore(folder / "checkpoint")
        assert again.progress.step > 0
        again.run()
        found[name] = outcome(again)
    return found


def fit(log: str, out: Path) -> None:
    """Train a run into a folder, by the settings that everybody has but for a small model."""
    training = {"epochs": 1, "batch_events": 96, "accumulate": 2, "loss": "sampled_softmax"}
    model = Recommender(
        "sasrec",
        encoder_options=SMALL,
        training_options={**training, "negatives": 100, "shard_items": True},
        device="cpu",
    )
    model.fit(log, out=out)


def sent(store: SequenceStore, processes: Processes) -> dict[str, Any]:
    """Bytes that a step sends, and the unique rows of its batch."""
    counting = Counting(processes)
    trainer = made_trainer("sasrec, clipped", processes.size, store, counting)  # type: ignore[arg-type]
    trainer.share_items()
    rows: list[int] = []
    assert trainer._sharded is not None
    fetch = trainer._sharded.fetch

    def noted(ids: Tensor) -> Tensor:
        rows.append(len(ids))
        return fetch(ids)

    trainer._sharded.table._fetch = noted
    trainer.encoder.item_embedding.sparse = True
    loss, _ = trainer.loss(trainer._plan(0), 0, processes.rank)
    loss.backward()
    trainer._sharded.give_back()
    trainer._sharded.give()
    return {"bytes": sum(counting.bytes), "rows": rows, "width": SMALL["d_model"]}


def main(out: str, runs: str, *wanted: str) -> None:
    """Train each case together with the other processes."""
    torch.set_num_threads(1)
    from recsys.training import sharded_ranking
    from tests.training.processes.parallel_softmax import compared, idle_compared

    sharded_ranking.BATCH_ROWS = 16  # some processes have one batch of users more than others
    found: dict[str, Any] = {}
    with joined(torch.device("cpu")) as processes:
        store = made_store(Path(f"{out}-data-{processes.rank}"))
        for one in wanted:
            case, _, accumulate = one.rpartition(":")
            if case != "fit":
                found[one] = sharded(case, int(accumulate), store, processes, Path(runs))
        found["sent"] = sent(store, processes)
        found["softmax"] = [compared(processes, smoothing) for smoothing in (0.0, 0.2)]
        found["idle"] = idle_compared(processes)
        Path(f"{out}-{processes.rank}").write_text(json.dumps(found), encoding="utf-8")
    if "fit:2" in wanted:
        fit(f"{runs}/log.parquet", Path(runs) / "run-2")


if __name__ == "__main__":
    main(*sys.argv[1:])
