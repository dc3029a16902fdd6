"""Small trainings whose every bit is compared between one process and several.

    python -m tests.training.processes.cases OUT CASE:ACCUMULATE...

Each process writes what it came to as JSON into ``OUT-RANK``; the case "exchange" is no training.
"""

import contextlib
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.training.checkpoint import Progress
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs
from recsys.training.processes import ALONE, Processes, joined
from recsys.training.reporting import SilentReporter
from recsys.training.trainer import Trainer
from recsys.training.validating import validation_metrics
from tests.conftest import random_log

SMALL = {"d_model": 16, "n_layers": 1, "max_length": 16, "dropout": 0.2}
QUICK = {
    "amp": False,
    "epochs": 2,
    "batch_events": 96,
    "warmup_steps": 2,
    "negatives": 100,
    "ema_decay": 0.9,
    "gradient_clip": 0.5,
}

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sasrec, full": ("sasrec", {"repeat_bias": 4}, {"loss": "full", "label_smoothing": 0.1}),
    "sasrec, own head, sampled": ("sasrec", {"tie_items": False}, {"loss": "sampled_softmax"}),
    "bert4rec, full": ("bert4rec", {}, {"loss": "full"}),
    "bert4rec, hashed, sampled": (
        "bert4rec",
        {"item_hashes": 2, "item_buckets": 16},
        {"loss": "sampled_softmax"},
    ),
    "mamba, hashed, full": ("mamba", {"item_hashes": 2, "item_buckets": 16}, {"loss": "full"}),
    "mamba, sampled": ("mamba", {}, {"loss": "bce", "negatives": 1}),
    "features, sampled": (
        "sasrec",
        {"item_parts": "id+features", "item_id_dropout": 0.2},
        {"loss": "sampled_softmax"},
    ),
}
"""Encoder, its options and the training's, by a name."""

STOPPED = ", stopped"
"""Behind the name of a case that is stopped within an epoch and taken up."""


def made_store(folder: Path, features: bool) -> SequenceStore:
    """A random log of 60 users over 30 items; on request with a category for each item."""
    log = random_log(users=60, items=30, seed=5)
    if not features:
        return prepare(log, folder)
    items = {"item_id": list(range(30)), "category": [f"c{i % 4}" for i in range(30)]}
    return prepare(log, folder, items=items, item_tags="category")


class StoppedError(Exception):
    """A training is stopped on purpose."""


class Stopping(SilentReporter):
    """Stops in the middle of the second epoch, as far as checkpoints know."""

    def stepped(self, progress: Progress, n_steps: int) -> None:
        """Stop before the checkpoint of an epoch's last step."""
        if progress.epoch == 1 and progress.step == n_steps:
            raise StoppedError


def made_trainer(case: str, accumulate: int, store: SequenceStore, processes: Processes) -> Trainer:
    """A trainer that looks for a checkpoint to write after every step."""
    name, encoder, training = CASES[case]
    config = TrainingConfig(**{**QUICK, **training, "accumulate": accumulate})
    settings = encoder_config(name, {**SMALL, **encoder})
    return Trainer(
        build_encoder(name, store.n_items, settings, features=item_inputs(store)),
        store,
        config,
        validate=validation_metrics(store, config, processes),
        checkpoint_seconds=0.0,
        processes=processes,
    )


def train(
    case: str, accumulate: int, folder: Path, processes: Processes = ALONE, *, stop: bool = False
) -> dict[str, Any]:
    """Train one case, on request stopped within an epoch and taken up by other objects; what it came to."""
    store = made_store(folder, "item_parts" in CASES[case][1])
    trainer = made_trainer(case, accumulate, store, processes)
    if stop:
        run = Path(processes.tell(str(folder)))
        trainer.reporter, trainer.folder = Stopping(), None if processes.rank else run
        with contextlib.suppress(StoppedError):
            trainer.run()
        trainer = made_trainer(case, accumulate, store, processes)
        trainer.restore(run / "checkpoint")
        assert trainer.progress.step > 0
    progress = trainer.run()
    model = trainer.encoder
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().contiguous().numpy().tobytes())
    told = ("epoch", "loss", "valid", "validation_loss")
    history = [{name: record[name] for name in told if name in record} for record in progress.history]
    return {"weights": digest.hexdigest(), "history": history, "steps": progress.global_step}


def main(out: str, *wanted: str) -> None:
    """Train each case together with the other processes."""
    torch.set_num_threads(1)
    from tests.training.processes.exchanges import exchange

    with joined(torch.device("cpu")) as processes, tempfile.TemporaryDirectory() as folder:
        found = {}
        for number, one in enumerate(wanted):
            case, _, accumulate = one.rpartition(":")
            place = Path(folder) / str(number)
            if case == "exchange":
                found[one] = exchange(processes, place)
            else:
                stop = case.endswith(STOPPED)
                found[one] = train(case.removesuffix(STOPPED), int(accumulate), place, processes, stop=stop)
        Path(f"{out}-{processes.rank}").write_text(json.dumps(found), encoding="utf-8")
    # A second group of the same processes meets by itself.
    with joined(torch.device("cpu")) as processes:
        assert processes.values(processes.rank) == list(range(processes.size))


if __name__ == "__main__":
    main(*sys.argv[1:])
