"""Kernels, and training from a prepared dataset, need neither polars nor pyarrow nor FAISS."""

import os
import subprocess
import sys
from pathlib import Path

from recsys.datasets.prepared.store import SequenceStore

ROOT = Path(__file__).parents[2]

TRAIN = """
import sys
for name in ("polars", "pyarrow", "faiss", "typer", "tomli_w", "platformdirs"):
    sys.modules[name] = None  # an import of it fails

from pathlib import Path
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import build_encoder, encoder_config
from recsys.training.config import TrainingConfig
from recsys.training.trainer import Trainer
import recsys.kernels.attention, recsys.kernels.clock, recsys.kernels.conv, recsys.kernels.cross_entropy
import recsys.kernels.ranking, recsys.kernels.scan
import recsys.benchmarks.kernels, recsys.benchmarks.training

store = SequenceStore.open(Path(sys.argv[1]))
for name in ("sasrec", "bert4rec", "mamba"):
    config = encoder_config(name, {"d_model": 16, "n_layers": 1, "max_length": 16})
    trainer = Trainer(build_encoder(name, store.n_items, config), store, TrainingConfig(epochs=1))
    print(trainer.run().history[0]["loss"])
# One process meets no other.
assert not {"recsys.training.process_group", "torch.distributed.elastic", "ray"} & set(sys.modules)
"""


def test_encoders_train_from_a_prepared_dataset_without_them(store: SequenceStore) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(store.path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line) for line in done.stdout.split()]
    assert len(losses) == 3
    assert all(0 < loss < 10 for loss in losses)
