"""A user whose state is not kept: stepping through the window against one encoding of it, alone and together.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.returning RUN [RUN ...]

Takes finished runs and users of their logs. `steps` replays a window event by event, `prefill` begins the
stream with all of it, for 1, 16 and 64 users at once; `step` is one more event of as many. Processor
milliseconds a user, medians over batches; with one thread they are the latency of an idle machine.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsys import load
from recsys.benchmarks.retrieval.measuring import record
from recsys.encoders.base import SequenceEncoder
from recsys.encoders.streams import step_through
from recsys.jagged import SequenceBatch

TOGETHER = (1, 16, 64)


def measure(run: Path, users: int) -> dict[str, Any]:
    """Time a run's encoder on windows of users of its log."""
    model = load(run, device="cpu", index="exact")
    encoder, store = model.encoder_, model.store_
    if encoder.needs_timestamps or encoder.needs_local_times:
        raise SystemExit(f"{run}: its encoder reads times: take a run without")
    drawn = np.random.default_rng(0).permutation(store.n_users)[:users]
    windows = [store.history(int(u), "all").astype(np.int64)[-encoder.history_length :] for u in drawn]
    found: dict[str, Any] = {
        "dataset": store.name,
        "encoder": model.encoder,
        "window_median": float(np.median([len(own) for own in windows])),
        "steps": _median(lambda batch: step_through(encoder, batch), [[own] for own in windows[:12]]),
    }
    for together in TOGETHER:
        batches = [windows[start : start + together] for start in range(0, len(windows), together)]
        whole = [batch for batch in batches if len(batch) == together]
        found[f"prefill_{together}"] = _median(encoder.prefill, whole) / together
        found[f"step_{together}"] = _step(encoder, whole[0]) / together
    return found


def _median(begin: Callable[[SequenceBatch], Any], batches: list[list[Any]]) -> float:
    """Processor milliseconds of a batch; the first ones compile."""
    spent = []
    with torch.inference_mode():
        for batch in [*batches[:2], *batches]:
            packed = SequenceBatch.from_sequences(batch)
            began = time.process_time()
            begin(packed)
            spent.append(1e3 * (time.process_time() - began))
    return float(np.median(spent[2:]))


def _step(encoder: SequenceEncoder, windows: list[Any], rounds: int = 40) -> float:
    """Processor milliseconds of a step of users whose windows have room for these steps."""
    room = max(1, encoder.history_length - rounds)
    spent = []
    with torch.inference_mode():
        _, state = encoder.prefill(SequenceBatch.from_sequences([own[-room:] for own in windows]))
        items = torch.tensor([int(own[0]) for own in windows])
        for _ in range(rounds):
            began = time.process_time()
            _, state = encoder.step(state, items)
            spent.append(1e3 * (time.process_time() - began))
    return float(np.median(spent))


def main() -> None:
    """Run, print, and write the record if it is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--users", type=int, default=256)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    made = [measure(run, options.users) for run in options.runs]
    for own in made:
        print(f"{own['dataset']} {own['encoder']}, median window {own['window_median']:.0f}, ms a user")
        print("  " + "  ".join(f"{name} {own[name]:.3f}" for name in own if name[:4] in ("step", "pref")))
    if options.out:
        command = "python -m recsys.benchmarks.retrieval.returning"
        record("retrieval-returning", command, {"runs": made}, options.out)


if __name__ == "__main__":
    main()
