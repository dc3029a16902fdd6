"""Two processes on a store of shards: the weights of one process, and each opens its own shards."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from recsys.datasets.preparing.prepare import prepare
from recsys.datasets.synthetic.logs import markov_log

TRAIN = """
import hashlib, json, sys
import torch
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.registry import build_encoder, encoder_config
from recsys.training.config import TrainingConfig
from recsys.training.processes import joined
from recsys.training.shard_plan import deal_shards
from recsys.training.trainer import Trainer
from recsys.training.validating import validation_metrics

torch.set_num_threads(1)
store = SequenceStore.open(sys.argv[1], verify=False)
small = {"d_model": 8, "n_layers": 1, "n_heads": 1, "max_length": 12}
found = {}
with joined(torch.device("cpu")) as processes:
    for loss in ("full", "sampled_softmax"):
        config = TrainingConfig(epochs=2, batch_events=64, accumulate=2, loss=loss, validation_users=30)
        encoder = build_encoder("sasrec", store.n_items, encoder_config("sasrec", small), seed=1)
        validate = validation_metrics(store, config, processes)
        trainer = Trainer(encoder, store, config, validate=validate, processes=processes)
        opened = set()
        shard = store.shard
        store.shard = lambda number: (opened.add(number), shard(number))[1]
        trainer._plan(0)
        del store.shard
        trainer.run()
        digest = hashlib.sha256()
        for name, tensor in sorted(encoder.state_dict().items()):
            digest.update(tensor.numpy().tobytes())
        history = [{k: v for k, v in r.items() if "second" not in k} for r in trainer.progress.history]
        found[loss] = {"sha256": digest.hexdigest(), "history": history, "planned": sorted(opened)}
    rank = processes.rank
streams = deal_shards([one.train_events for one in store.shards], 2, 0, 0)
print(json.dumps({"rank": rank, "found": found, "streams": [sorted(one) for one in streams]}))
"""


def trained(store: Path, processes: int) -> list[dict[str, Any]]:
    """What each process found, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(store)],
            env={**os.environ, **launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    told = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * processes
    return sorted((json.loads(text.splitlines()[-1]) for text in told), key=lambda one: int(one["rank"]))


def test_two_processes_end_in_the_bits_of_one(tmp_path: Path) -> None:
    log = markov_log(n_users=90, n_items=40, mean_length=12).frame
    prepare(log, tmp_path / "store", shards=6)
    (alone,) = trained(tmp_path / "store", 1)
    both = trained(tmp_path / "store", 2)
    assert len(alone["found"]["full"]["history"]) == 2
    for loss, one in alone["found"].items():
        for other in both:
            assert other["found"][loss]["sha256"] == one["sha256"]
            assert other["found"][loss]["history"] == one["history"]
    planned = [process["found"]["full"]["planned"] for process in both]
    assert planned == both[0]["streams"]  # each counts the batches of its own shards alone
    assert sorted(planned[0] + planned[1]) == list(range(6))
