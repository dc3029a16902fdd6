"""Two processes in two network namespaces: the same bits, and the bytes that cross the cable between them.

    python -m recsys.benchmarks.scale.namespaces --json benchmarks/results/scale/namespaces.json

Each namespace has its own network stack, so that a process reaches the other through a pair of virtual cards
alone, as two machines would; their counters say what was sent. Needs root (CAP_NET_ADMIN) and `ip`. What a
step of G = W = 2 batches sends is told by the difference of a training of 3 epochs and one of 1, and compared
with 2 (W - 1)/W times the bytes of the weights.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.scale.cases import CASES, made_store, train
from recsys.benchmarks.scale.launching import start
from recsys.errors import RunError
from recsys.files import write_json
from recsys.training.processes import joined

CASE = "sasrec, full, table"
WIDE = {"batch_events": 256, "accumulate": 2}
"""26 batches an epoch, so that no group is short of one."""
ITEMS = 4000
PORT = "29517"


@contextmanager
def cable() -> Iterator[list[tuple[str, str, str]]]:
    """Two namespaces with a pair of virtual cards between them.

    Yields:
        Name, card and address of each.

    Raises:
        RunError: this process may not make any.
    """
    mark = f"{os.getpid():x}"
    ends = [(f"rs{mark}{end}", f"v{mark}{end}", f"10.77.0.{1 + number}") for number, end in enumerate("ab")]
    with ExitStack() as held:
        for name, _, _ in ends:
            _ip("netns", "add", name)
            held.callback(_ip, "netns", "del", name)
        (first, card, _), (second, other, _) = ends
        _ip("-n", first, "link", "add", card, "type", "veth", "peer", "name", other, "netns", second)
        for name, own, address in ends:
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", own)
            _ip("-n", name, "link", "set", own, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield ends


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RunError(f"ip {' '.join(arguments)}: {getattr(error, 'stderr', None) or error}") from None
    return done.stdout


def sent(ends: list[tuple[str, str, str]]) -> list[int]:
    """Bytes that each card has sent."""
    told = [json.loads(_ip("-n", name, "-s", "-j", "link", "show", card)) for name, card, _ in ends]
    return [int(cards[0]["stats64"]["tx"]["bytes"]) for cards in told]


def together(ends: list[tuple[str, str, str]], epochs: int, folder: Path) -> list[dict[str, Any]]:
    """Train with a process in each namespace; what each came to."""
    running = []
    for rank, (name, card, _) in enumerate(ends):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
        launcher += ["--nproc-per-node", "1", "--master-addr", ends[0][2], "--master-port", PORT]
        what = ["-m", "recsys.benchmarks.scale.namespaces", "--train", str(folder / f"{epochs}"), str(epochs)]
        inside = ["ip", "netns", "exec", name]
        running.append(start([*launcher, *what], inside, GLOO_SOCKET_IFNAME=card))
    said = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        raise RunError(f"a process failed: {' '.join(text[-1500:] for text in said)}")
    return [json.loads(Path(folder / f"{epochs}-{rank}").read_text(encoding="utf-8")) for rank in (0, 1)]


def worker(out: str, epochs: int) -> None:
    """One of the processes, or one alone."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as processes, tempfile.TemporaryDirectory() as folder:
        store = made_store(Path(folder) / "data", items=ITEMS)
        trainer, facts = train(CASES[CASE], store, processes, epochs=epochs, **WIDE)
        facts["parameters"] = sum(p.numel() for p in trainer.encoder.parameters())
    Path(f"{out}-{processes.rank}").write_text(json.dumps(facts), encoding="utf-8")


def measure(folder: Path) -> dict[str, Any]:
    """Train on one process and over the cable; the bytes of a step."""
    counted: dict[int, list[int]] = {}
    facts: dict[int, list[dict[str, Any]]] = {}
    for epochs in (1, 3):
        with cable() as ends:
            before = sent(ends)
            facts[epochs] = together(ends, epochs, folder)
            counted[epochs] = [now - then for now, then in zip(sent(ends), before, strict=True)]
    worker(str(folder / "alone"), 3)
    alone = json.loads((folder / "alone-0").read_text(encoding="utf-8"))
    steps = facts[3][0]["steps"] - facts[1][0]["steps"]
    per_step = [(late - early) / steps for late, early in zip(counted[3], counted[1], strict=True)]
    theory = 4 * alone["parameters"]  # 2 (W - 1) / W x 4 P, W = 2
    return {
        "case": CASE,
        "parameters": alone["parameters"],
        "sha256": alone["sha256"],
        "same": all(told == alone for told in facts[3]),
        "bytes_a_step": per_step,
        "theory": theory,
        "ratio": [measured / theory for measured in per_step],
    }


def main() -> int:
    """Run and print; write JSON if asked; 1 where bits differ or more than 5% more or less is sent."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", nargs=2, metavar=("OUT", "EPOCHS"), help="be one of the processes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.train:
        worker(arguments.train[0], int(arguments.train[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(json.dumps(found, indent=1))
    if arguments.json is not None:
        write_json(arguments.json, {**stamp(), **found})
    return int(not found["same"] or any(abs(ratio - 1) > 0.05 for ratio in found["ratio"]))


if __name__ == "__main__":
    sys.exit(main())
