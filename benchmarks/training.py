"""Training throughput of the three encoders, each with its default preset: ``recsys bench train``.

    python -m recsys.benchmarks.training --device cuda --store .carry/ml-1m --epochs 4 --out training.json

Imports neither polars nor FAISS, so that it runs from a prepared dataset where they are missing.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys.benchmarks.kernels import choose_device
from recsys.benchmarks.kernels.shapes import ML_1M, draw_lengths
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.report import lines
from recsys.benchmarks.timing import spread
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config, preset
from recsys.errors import RecsysError
from recsys.files import write_json
from recsys.training.config import TrainingConfig
from recsys.training.trainer import Trainer

__all__ = ["ENCODERS", "made_store", "run", "time_encoder"]

ENCODERS = ("sasrec", "bert4rec", "mamba")


def run(
    *,
    device: str = "auto",
    epochs: int = 3,
    users: int = 100,
    store: SequenceStore | None = None,
    encoders: Sequence[str] = ENCODERS,
    batch_events: int | None = None,
    keep: Callable[[dict[str, Any]], object] = lambda result: None,
) -> dict[str, Any]:
    """Time training epochs: batches, losses, gradients, updates; no validation.

    Args:
        device: auto, cpu or cuda.
        epochs: timed epochs of each encoder; one more is run before, in which kernels compile.
        users: of the made log: its lengths are ML-1M's, its catalog too.
        store: a prepared dataset in place of the made log.
        encoders: which.
        batch_events: events of a step; None is each preset's own.
        keep: given the result so far after each encoder, in case the run is cut off.

    Raises:
        ArgumentError: the device is unknown, or there is no GPU.
    """
    where = choose_device(device)
    if store is None:
        store = made_store(users=users)
    facts = {"users": store.n_users, "items": store.n_items, "events": store.n_events}
    result: dict[str, Any] = {"benchmark": "train", **stamp(), "device": where.type}
    result |= {"log": store.name, **facts, "encoders": []}
    for name in encoders:
        result["encoders"].append(time_encoder(name, store, where, epochs, batch_events))
        keep(result)
        print(f"{name}: timed", file=sys.stderr, flush=True)
    return result


def time_encoder(
    name: str,
    store: SequenceStore,
    device: torch.device,
    epochs: int,
    batch_events: int | None = None,
    encoder_settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an encoder for a few epochs and report the later ones.

    Args:
        name: of the encoder; its default preset is taken.
        store: the data.
        device: where it trains.
        epochs: timed, after one that is not.
        batch_events: events of a step; None is the preset's own.
        encoder_settings: that differ from the preset's.
    """
    chosen = preset(name, "tuned")
    settings = encoder_config(name, {**chosen.get("encoder", {}), **(encoder_settings or {})})
    encoder = build_encoder(name, store.n_items, settings).to(device)
    own = {} if batch_events is None else {"batch_events": batch_events}
    config = TrainingConfig(**{**chosen.get("training", {}), "epochs": epochs + 1, **own})
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    history = Trainer(encoder, store, config).run().history
    timed = history[1:]
    entry = {
        "encoder": name,
        "d_model": encoder.config.d_model,
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "batch_events": config.batch_events,
        "epochs": len(timed),
        "epoch_s": spread([record["seconds"] for record in timed]),
        "events_per_s": spread([record["events_per_second"] for record in timed]),
        "loss": {"first": history[0]["loss"], "last": history[-1]["loss"]},
    }
    if device.type == "cuda":
        entry["peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return entry


def made_store(*, users: int, items: int = 3_416, seed: int = 0) -> SequenceStore:
    """A log in memory: ML-1M's lengths, each item some steps after the one before: a loss can fall."""
    rng = np.random.default_rng(seed)
    lengths = draw_lengths(ML_1M, users * 165)[:users] + 2  # one event to validate, one to test
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    steps = rng.integers(1, 8, int(offsets[-1]))
    steps[offsets[:-1]] = rng.integers(items, size=len(lengths))
    walked = np.cumsum(steps) - np.repeat(np.cumsum(steps)[offsets[:-1]] - steps[offsets[:-1]], lengths)
    counts = {"users": len(lengths), "items": items, "events": len(steps)}
    meta: dict[str, Any] = {"name": "made", "counts": counts, "files": {}, "ids": {}}
    arrays: dict[str, Any] = {
        "items": (walked % items).astype(np.int32),
        "timestamps": np.cumsum(rng.integers(1, 100_000, len(steps))),
        "offsets": offsets,
        "valid_start": offsets[1:] - 2,
        "test_start": offsets[1:] - 1,
    }
    return SequenceStore(Path("made"), meta, arrays)


def main() -> int:
    """Run, print, write; 0, or 2 on a user's error."""
    parser = argparse.ArgumentParser(
        prog="python -m recsys.benchmarks.training", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--epochs", type=int, default=3, help="timed, of each encoder (default: %(default)s)")
    parser.add_argument("--users", type=int, default=100, help="of the made log (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="prepared dataset in place of the made log")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="with commas between")
    parser.add_argument("--batch-events", type=int, help="events of a step (default: each preset's own)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    try:
        store = None if options.store is None else SequenceStore.open(options.store)
        result = run(
            device=options.device,
            epochs=options.epochs,
            users=options.users,
            store=store,
            encoders=options.encoders.split(","),
            batch_events=options.batch_events,
            keep=(lambda result: None)
            if options.out is None
            else lambda result: write_json(options.out, result),
        )
    except RecsysError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
