"""Small trainings of which every bit is compared, and the process that does them.

    torchrun --nproc-per-node W -m recsys.benchmarks.scale.cases OUT --accumulate 2 3 --cases ...

Each process writes ``OUT-RANK``, JSON: by case and batches a step the sha256 of all weights, the losses and
the validation's NDCG@10.
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.datasets.preparing.prepare import prepare
from recsys.encoders import build_encoder, encoder_config
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs
from recsys.training.processes import ALONE, Processes, joined
from recsys.training.trainer import Trainer
from recsys.training.validating import validation_metrics

__all__ = ["CASES", "made_store", "train"]

SMALL: dict[str, Any] = {"d_model": 32, "n_layers": 1, "max_length": 50, "dropout": 0.2}
QUICK: dict[str, Any] = {
    "amp": False,
    "epochs": 2,
    "batch_events": 256,
    "warmup_steps": 4,
    "ema_decay": 0.9,
    "gradient_clip": 0.5,
    "negatives": 128,
    "weight_decay": 0.01,
}
HASHED = {"item_hashes": 2, "item_buckets": 64}
FEATURES = {"item_parts": "id+features", "item_id_dropout": 0.2}

Case = tuple[str, dict[str, Any], str]

CASES: dict[str, Case] = {
    f"{name}, {loss}, {table}": (name, options, loss)
    for name in ("sasrec", "bert4rec", "mamba")
    for loss in ("full", "sampled_softmax")
    for table, options in (("table", {}), ("hashed", HASHED))
}
CASES |= {
    f"{name}, full, repeat bias": (name, {"repeat_bias": 8}, "full")
    for name in ("sasrec", "bert4rec", "mamba")
}
CASES |= {f"sasrec, {loss}, features": ("sasrec", FEATURES, loss) for loss in ("full", "sampled_softmax")}
CASES |= {f"mamba, {loss}, own head": ("mamba", {"tie_items": False}, loss) for loss in ("full", "gbce")}
"""Encoder, its options and the loss, by a name; all with a weight average and clipped gradients."""


def made_store(folder: Path, users: int = 150, items: int = 400) -> SequenceStore:
    """Random walks over items with a category each: what it is changes nothing of what is compared."""
    rng = np.random.default_rng(0)
    columns: dict[str, list[int]] = {"user_id": [], "item_id": [], "timestamp": []}
    for user in range(users):
        place = int(rng.integers(items))
        for time in range(int(rng.integers(5, 80))):
            for name, value in (("user_id", user), ("item_id", place), ("timestamp", time)):
                columns[name].append(value)
            place = (place + int(rng.integers(1, 4))) % items
    described = {"item_id": list(range(items)), "category": [f"c{item % 12}" for item in range(items)]}
    return prepare(columns, folder, items=described, item_tags="category")


def train(
    case: Case, store: SequenceStore, processes: Processes = ALONE, **training: Any
) -> tuple[Trainer, dict[str, Any]]:
    """Train one case with some settings changed; the trainer, and what it came to."""
    name, options, loss = case
    config = TrainingConfig(**{**QUICK, "loss": loss, **training})
    settings = encoder_config(name, {**SMALL, **options})
    encoder = build_encoder(name, store.n_items, settings, features=item_inputs(store))
    validate = validation_metrics(store, config, processes)
    trainer = Trainer(encoder, store, config, validate=validate, processes=processes)
    progress = trainer.run()
    digest = hashlib.sha256()
    for value in encoder.state_dict().values():
        digest.update(value.detach().contiguous().numpy().tobytes())
    return trainer, {
        "sha256": digest.hexdigest(),
        "losses": [record["loss"] for record in progress.history],
        "ndcg@10": [record["valid"]["ndcg@10"] for record in progress.history],
        "steps": progress.global_step,
    }


def main() -> None:
    """Train what is asked for, together with the other processes if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out")
    parser.add_argument("--accumulate", type=int, nargs="+", default=[2])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {name: {} for name in arguments.cases}
    with joined(torch.device("cpu")) as processes, tempfile.TemporaryDirectory() as folder:
        store = made_store(Path(folder) / "data")
        for name in arguments.cases:
            for accumulate in arguments.accumulate:
                _, facts = train(CASES[name], store, processes, accumulate=accumulate)
                found[name][str(accumulate)] = facts
    Path(f"{arguments.out}-{processes.rank}").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
