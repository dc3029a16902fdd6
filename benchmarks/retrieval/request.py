"""One request from raw history to answer, stage by stage.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.request RUN

Takes a finished run (as `recsys train` leaves it) and asks for users of its log, one at a time, histories
shuffled. Stages: ids (raw to indices), encode (history to state), search (state to k items, seen excluded),
names (indices to raw ids and titles). `step` is what encoding costs instead when the user's state is kept.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.measuring import record, spread
from recsys import load
from recsys.encoders.inference import encode_histories
from recsys.queries import of_histories
from recsys.states import UserStates


def measure(run: Path, requests: int, k: int, kind: str) -> dict[str, Any]:
    """Time the stages of single requests."""
    model = load(run, device="cpu", index=kind)
    if model.index_.kind != kind and kind != "auto":
        model.build_index(kind)
    store, encoder, decoder, names = model.store_, model.encoder_, model.decoder_, model._names
    rng = np.random.default_rng(0)
    users = rng.integers(0, store.n_users, requests + 20)
    raw = [names.items.decode(store.history(int(u), "all").astype(np.int64)).to_list() for u in users]
    stages: dict[str, list[float]] = {
        name: [] for name in ("ids", "encode", "search", "names", "total", "step")
    }
    states = UserStates(encoder, lambda user: (store.history(int(str(user)), "all").astype(np.int64), None))
    for number, history in enumerate(raw):
        marks = [time.perf_counter()]
        queries = of_histories([history], names.items, "raise")
        marks.append(time.perf_counter())
        hidden = encode_histories(encoder, queries.items, None, queries.offsets[:-1], queries.offsets[1:])
        state = hidden.float().numpy()
        marks.append(time.perf_counter())
        found = decoder.search(state, k, exclude=(queries.items, queries.offsets))
        marks.append(time.perf_counter())
        ids = found.ids[0][found.ids[0] >= 0]
        names.items.decode(ids).to_list()
        if names.titles is not None:
            names.titles.gather(ids).to_list()
        marks.append(time.perf_counter())
        user = int(users[number])
        states.state(user)
        began = time.perf_counter()
        states.append(user, int(store.items[store.offsets[user]]))
        step = time.perf_counter() - began
        if number >= 20:  # the first calls compile
            for name, seconds in zip(stages, [*np.diff(marks), marks[-1] - marks[0], step], strict=True):
                stages[name].append(float(seconds))
    return {
        "encoder": model.encoder,
        "items": store.n_items,
        "index": model.index_.kind,
        "requests": requests,
        "k": k,
        "history_median": float(np.median([len(h) for h in raw])),
        "stages": {name: spread(times) for name, times in stages.items()},
    }


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = measure(options.run, options.requests, options.k, options.kind)
    for name, times in result["stages"].items():
        print(f"{name:7} p50 {times['p50_ms']:7.3f} ms   p99 {times['p99_ms']:7.3f} ms")
    record("retrieval-request", "python -m benchmarks.retrieval.request", result, options.out)


if __name__ == "__main__":
    main()
