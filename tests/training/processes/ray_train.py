"""Ray Train starts the processes of a training: the same bits as one process.

    python -m tests.training.processes.ray_train --json benchmarks/results/scale/ray-train.json

Needs ``ray[train]``. Two workers of this machine train a run together by ``Recommender.fit``, which finds the
others by what Ray Train sets in the environment.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys.benchmarks.machine import stamp
from recsys.errors import MissingDependencyError
from recsys.files import sha256_of, write_json
from recsys.recommender import Recommender

OPTIONS: dict[str, Any] = {
    "encoder_options": {"d_model": 32, "n_layers": 1, "max_length": 50},
    "training_options": {"epochs": 3, "batch_events": 256, "accumulate": 2, "loss": "full"},
    "device": "cpu",
}


def fit(config: dict[str, Any]) -> None:
    """What each worker does."""
    Recommender("sasrec", **OPTIONS).fit(config["log"], out=config["out"])


def main() -> int:
    """Train both ways and print; write JSON if asked; 1 where the bits differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    try:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError:
        raise MissingDependencyError("ray is not installed; pip install 'ray[train]'") from None
    import polars as pl

    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(150), rng.integers(5, 80, 150))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.parquet"
        columns = {
            "user_id": users,
            "item_id": rng.integers(0, 400, len(users)),
            "timestamp": range(len(users)),
        }
        pl.DataFrame(columns).write_parquet(log)
        alone, out = Path(folder) / "alone", Path(folder) / "run"
        fit({"log": str(log), "out": str(alone)})
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True)
        try:
            TorchTrainer(
                fit,
                train_loop_config={"log": str(log), "out": str(out)},
                scaling_config=ScalingConfig(num_workers=2, use_gpu=False),
                run_config=RunConfig(storage_path=str(Path(folder) / "ray")),
            ).fit()
        finally:
            ray.shutdown()
        digests = {
            "alone": sha256_of(alone / "model.safetensors"),
            "ray": sha256_of(out / "model.safetensors"),
        }
    same = len(set(digests.values())) == 1
    print(f"{digests}, {'same bits' if same else 'DIFFERENT'}")
    if arguments.json is not None:
        facts = {**stamp(), "ray": ray.__version__, "workers": 2, "sha256": digests, "same": same}
        write_json(arguments.json, facts)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
