"""What a training step gives a GPU to do, counted without one: our kernels and PyTorch's operators.

    python -m recsys.benchmarks.step_launches

Our kernels are chosen as on a GPU, on tensors in memory, and recorded instead of run, so that the numbers of
such a step mean nothing and its launches are those of any. Every operator of PyTorch that makes more than a
view or room in memory counts as one, those inside our own operators not at all; some of them, such as a sort,
launch several kernels. The profile of a step on a GPU is a stage of `make gpu`.
"""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.benchmarks.machine import stamp
from recsys.benchmarks.repeat_bias import local_store
from recsys.benchmarks.steps import Steps
from recsys.files import write_json
from recsys.kernels.shared.backends import prefer_backend
from recsys.kernels.shared.launching.recording import record_launches

__all__ = ["SIDES", "count_launches"]

CHIP = "sm_90"

SIDES: dict[str, tuple[str, Mapping[str, Any]]] = {
    "sasrec": ("sasrec", {"repeat_by": "last"}),
    "sasrec, clock": ("sasrec", {"repeat_by": "clock"}),
    "bert4rec": ("bert4rec", {"repeat_by": "last"}),
    "mamba": ("mamba", {"repeat_by": "last"}),
}
"""Encoder and settings by title."""

_ROOM = ("empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "_local_scalar_dense")
"""Operators that compute nothing, besides views."""


class _Operators(TorchDispatchMode):
    """Counts PyTorch's operators by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if func.namespace == "aten" and not func.is_view and name not in _ROOM:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def count_launches(step: Callable[[], None]) -> dict[str, Any]:
    """Take a training step for its launches, and one before it, for what is made once.

    Args:
        step: one of `Steps` on the CPU, of a run whose loss draws nothing.

    Returns:
        ``kernels``, how many of ours, ``operators`` of PyTorch by name, most first, and ``total``.
    """
    step()
    with (
        patch.dict(os.environ, TRITON_INTERPRET="1"),
        record_launches(CHIP) as recorder,
        prefer_backend("triton"),
        _Operators() as operators,
    ):
        step()
    kernels = len(recorder.configs)
    return {
        "kernels": kernels,
        "operators": dict(operators.found.most_common()),
        "total": kernels + operators.found.total(),
    }


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=60, help="of the made log (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = local_store(options.users)
    result: dict[str, Any] = {"benchmark": "step_launches", **stamp(), "chip": CHIP, "sides": {}}
    for title, (name, settings) in SIDES.items():
        encoder = {"max_length": 200, "repeat_bias": 8, **settings}
        found = count_launches(Steps(name, store, encoder=encoder))
        result["sides"][title] = found
        most = ", ".join(f"{n} {name}" for name, n in list(found["operators"].items())[:6])
        print(
            f"{title:<14} {found['total']} launches: {found['kernels']} kernels of ours; {most}", flush=True
        )
    if options.out is not None:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
