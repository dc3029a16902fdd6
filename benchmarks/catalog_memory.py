"""Memory at a million items: a training step and a ranking, each in a process of its own.

    python -m recsys.benchmarks.catalog_memory --json benchmarks/results/catalog-memory.json

Each case first builds its model, optimizer state included and written to, and runs once at a small size, so
that code is compiled and loaded; then the peak counter of the process is reset and the work is done. Printed
is the peak of resident memory above what the process held before. Exit code 1 if a case is over its limit.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recsys.files import write_json

LIMITS_MIB = {
    "step, sampled softmax": 1024,
    "step, gBCE": 1024,
    "step, sampled softmax, hashed": 1024,
    "step, full softmax": 1024,
    "ranking": 200,
}
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "step, sampled softmax": ({}, {"loss": "sampled_softmax"}),
    "step, gBCE": ({}, {"loss": "gbce"}),
    "step, sampled softmax, hashed": ({"item_hashes": 4}, {"loss": "sampled_softmax"}),
    "step, full softmax": ({}, {"loss": "full"}),
}


def memory_mib(field: str) -> float:
    """A line of /proc/self/status, VmRSS or VmHWM, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}: this program needs Linux")


def measure(work: Any) -> dict[str, float]:
    """Peak of resident memory while `work` runs, above what was held before, and its time."""
    before = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return {"held_mib": before, "peak_over_mib": memory_mib("VmHWM") - before, "seconds": seconds}


def training_step(case: str, n_items: int, rows: int, width: int) -> dict[str, float]:
    """One optimization step of SASRec on `rows` targets."""
    import numpy as np
    import torch

    from recsys.encoders import build_encoder, encoder_config
    from recsys.jagged import SequenceBatch
    from recsys.training.config import TrainingConfig
    from recsys.training.losses import TrainingLoss
    from recsys.training.objectives import next_item
    from recsys.training.optimizer import clip_gradients, make_optimizer

    encoder_options, training_options = OPTIONS[case]
    config = TrainingConfig(**training_options)
    encoder = build_encoder(
        "sasrec", n_items, encoder_config("sasrec", {"d_model": width, **encoder_options}), seed=0
    )
    optimizer = make_optimizer(encoder, config)
    for parameter in encoder.parameters():
        optimizer.state[parameter] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(parameter).fill_(1e-9),
            "exp_avg_sq": torch.zeros_like(parameter).fill_(1e-9),
        }
    # Uniform negatives need no counts, so there is no log to read.
    loss = TrainingLoss(encoder, None, config)
    encoder.item_embedding.sparse = loss.plan.sampled
    rng = np.random.default_rng(0)

    def step(targets: int) -> None:
        lengths = np.full(-(-targets // 128), 129)
        task = next_item(SequenceBatch.from_lengths(rng.integers(0, n_items, lengths.sum()), lengths))
        hidden = encoder(task.batch, generator=torch.Generator().manual_seed(0))
        optimizer.zero_grad(set_to_none=True)
        loss(hidden, task.targets, loss.draw(task.targets, 1)).backward()
        clip_gradients(encoder, 1.0)
        optimizer.step()

    step(128)
    optimizer.zero_grad(set_to_none=True)
    return measure(lambda: step(rows))


def ranking(n_items: int, users: int, width: int) -> dict[str, float]:
    """Ranks of one target and the ten best items of each user, in batches as evaluation does."""
    import torch

    from recsys.kernels.ranking import rank_of_target, top_k

    generator = torch.Generator().manual_seed(0)
    table = torch.randn(n_items, width, generator=generator)
    states = torch.randn(users, width, generator=generator)
    targets = torch.randint(0, n_items, (users,), generator=generator)

    def rank(weight: torch.Tensor, some: slice) -> None:
        rank_of_target(states[some], weight, targets[some].clamp(max=len(weight) - 1))
        top_k(states[some], weight, 10)

    rank(table[:2000], slice(0, 32))

    def rank_all() -> None:
        for i in range(0, users, 1024):
            rank(table, slice(i, i + 1024))

    return measure(rank_all)


def main() -> None:
    """Run the cases, each in a process of its own; or one case in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(LIMITS_MIB), choices=list(LIMITS_MIB))
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = {name: getattr(arguments, name) for name in ("items", "rows", "users", "width")}
    if arguments.here is not None:
        if arguments.here == "ranking":
            found = ranking(sizes["items"], sizes["users"], sizes["width"])
        else:
            found = training_step(arguments.here, sizes["items"], sizes["rows"], sizes["width"])
        print(json.dumps(found))
        return
    cases: dict[str, Any] = {}
    for case in arguments.cases:
        options = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "recsys.benchmarks.catalog_memory", "--here", case, *options]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        cases[case] = {**json.loads(output.splitlines()[-1]), "limit_mib": LIMITS_MIB[case]}
        record = cases[case]
        print(
            f"{case:<32} {record['peak_over_mib']:>8.0f} MiB over {record['held_mib']:,.0f} held "
            f"(limit {record['limit_mib']}), {record['seconds']:.1f} s",
            flush=True,
        )
    if arguments.json is not None:
        from recsys.benchmarks.machine import stamp

        write_json(arguments.json, {**stamp(), "sizes": sizes, "cases": cases})
    if any(record["peak_over_mib"] >= record["limit_mib"] for record in cases.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
