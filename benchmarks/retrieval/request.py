"""One request from raw history to answer, stage by stage.

    OMP_NUM_THREADS=1 python -m recsys.benchmarks.retrieval.request RUN [RUN ...]

Takes finished runs (as `recsys train` leaves them) and asks for users of their logs, one at a time, histories
shuffled. Stages: ids (raw to indices), encode (history to state), search (state to k items, seen excluded),
names (indices to raw ids and titles). `step` is what encoding costs instead when the user's state is kept.
Wall-clock milliseconds are those of the machine as it was; processor milliseconds leave out what its other
work took, and with one thread are the latency of an idle one. A run's record takes the place of its earlier
one.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from recsys import load
from recsys.answering.queries import of_histories
from recsys.answering.user_states import UserStates
from recsys.benchmarks.folders import RESULTS
from recsys.benchmarks.machine import commit
from recsys.benchmarks.retrieval.measuring import record, spread
from recsys.encoders.inference import encode_histories


def measure(run: Path, requests: int, k: int, kind: str) -> dict[str, Any]:
    """Time the stages of single requests."""
    model = load(run, device="cpu", index=kind)
    if model.index_.kind != kind and kind != "auto":
        model.build_index(kind)
    store, encoder, decoder, names = model.store_, model.encoder_, model.decoder_, model._names
    rng = np.random.default_rng(0)
    users = rng.integers(0, store.n_users, requests + 20)
    raw = [names.items.decode(store.history(int(u), "all").astype(np.int64)).to_list() for u in users]
    names_of_stages = ("ids", "encode", "search", "names", "total", "step")
    stages: dict[str, list[tuple[float, float]]] = {name: [] for name in names_of_stages}
    states = UserStates(encoder, lambda user: (store.history(int(str(user)), "all").astype(np.int64), None))
    for number, history in enumerate(raw):
        marks = [_now()]
        queries = of_histories([history], names.items, "raise")
        marks.append(_now())
        hidden = encode_histories(encoder, queries.items, None, queries.offsets[:-1], queries.offsets[1:])
        state = hidden.float().numpy()
        marks.append(_now())
        found = decoder.search(state, k, exclude=(queries.items, queries.offsets))
        marks.append(_now())
        ids = found.ids[0][found.ids[0] >= 0]
        names.items.decode(ids).to_list()
        if names.titles is not None:
            names.titles.gather(ids).to_list()
        marks.append(_now())
        user = int(users[number])
        states.state(user)
        began = _now()
        states.append(user, int(store.items[store.offsets[user]]))
        marks.append(_now())
        if number >= 20:  # the first calls compile
            places = [*itertools.pairwise(marks[:5]), (marks[0], marks[4]), (began, marks[5])]
            for name, (first, last) in zip(names_of_stages, places, strict=True):
                stages[name].append((last[0] - first[0], last[1] - first[1]))
    return {
        "dataset": store.name,
        "encoder": model.encoder,
        "items": store.n_items,
        "index": model.index_.kind,
        "requests": requests,
        "k": k,
        "history_median": float(np.median([len(h) for h in raw])),
        "commit": commit(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "stages": {
            name: {
                **spread([wall for wall, _ in times]),
                **{f"processor_{key}": ms for key, ms in spread([own for _, own in times]).items()},
            }
            for name, times in stages.items()
        },
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def main() -> None:
    """Run, print, write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    path = options.out or RESULTS / "retrieval-request.json"
    for run in options.runs:
        made = measure(run, options.requests, options.k, options.kind)
        print(f"{made['dataset']} {made['encoder']}, index {made['index']}")
        for name, times in made["stages"].items():
            print(
                f"  {name:7} p50 {times['p50_ms']:7.3f} ms   p99 {times['p99_ms']:7.3f} ms   processor "
                f"p50 {times['processor_p50_ms']:7.3f} ms   p99 {times['processor_p99_ms']:7.3f} ms"
            )
        others = json.loads(path.read_text())["runs"] if path.exists() else []
        kept = [o for o in others if (o["dataset"], o["encoder"]) != (made["dataset"], made["encoder"])]
        runs = sorted([*kept, made], key=lambda o: (o["dataset"], o["encoder"]))
        record("retrieval-request", "python -m recsys.benchmarks.retrieval.request", {"runs": runs}, path)


if __name__ == "__main__":
    main()
