"""A training on several processes of which one kills itself.

    python -m tests.training.processes.dying LOG OUT RANK STEP

Process RANK is killed by itself in its STEP-th optimization step.
"""

import os
import signal
import sys
from typing import Any

import torch

from recsys.errors import RecsysError
from recsys.recommender import Recommender
from recsys.training.trainer import Trainer

RECIPE: dict[str, Any] = {
    "encoder_options": {"d_model": 16, "n_layers": 1, "max_length": 16, "repeat_bias": 3},
    "training_options": {
        "epochs": 4,
        "batch_events": 96,
        "accumulate": 2,
        "loss": "full",
        "ema_decay": 0.9,
        "warmup_steps": 2,
    },
    "device": "cpu",
}


def recipe(epochs: int) -> dict[str, Any]:
    """The same for so many epochs."""
    return {**RECIPE, "training_options": {**RECIPE["training_options"], "epochs": epochs}}


def main(log: str, out: str, rank: int, at: int) -> None:
    """Train until death."""
    torch.set_num_threads(1)
    before, steps = Trainer._optimize, iter(range(1, sys.maxsize))

    def optimize(*arguments: Any) -> None:
        if int(os.environ["RANK"]) == rank and next(steps) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        before(*arguments)

    Trainer._optimize = optimize  # type: ignore[method-assign,assignment]
    try:
        Recommender("sasrec", **RECIPE).fit(log, out=out)
    except RecsysError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
