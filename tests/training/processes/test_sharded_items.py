"""An item table in rows over processes: the bits of one, a part of the memory, bytes of rows alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.datasets.prepared.store import SequenceStore
from recsys.files import sha256_of
from recsys.training.processes import ALONE
from tests.conftest import random_log
from tests.training.processes import sharded
from tests.training.processes.cases import SMALL
from tests.training.processes.launching import all_well, launch
from tests.training.processes.sharded import CASES, STOPPED

pytestmark = pytest.mark.usefixtures("one_thread")


def _together(size: int, wanted: list[str], folder: Path) -> list[dict[str, Any]]:
    """What each of so many processes came to, by rank."""
    out = folder / str(size)
    all_well(launch(size, "-m", "tests.training.processes.sharded", str(out), str(folder), *wanted))
    return [json.loads(Path(f"{out}-{rank}").read_text(encoding="utf-8")) for rank in range(size)]


def _alone(case: str, accumulate: int, store: SequenceStore, **more: Any) -> dict[str, Any]:
    """One process with the whole table."""
    trainer = sharded.made_trainer(case, accumulate, store, ALONE, **more)
    trainer.run()
    return sharded.outcome(trainer)


def _batches(case: str, accumulate: int, store: SequenceStore) -> list[int]:
    trainer = sharded.made_trainer(case, accumulate, store, ALONE)
    return [trainer._plan(epoch).n_steps for epoch in (0, 1)]


def _check_same(told: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Process 0 has the weights of one process, and all its losses and metrics."""
    assert alone["steps"] > 2
    assert told[0] == alone
    assert all(one == {**alone, "weights": None} for one in told[1:])


def _check_held(rows: list[dict[str, list[int]]], n_rows: int) -> None:
    """Weights, moments, average and best weights: of each a process has its rows and no more."""
    for rank, held in enumerate(rows):
        own = len(range(rank, n_rows, len(rows)))
        assert len(held) == 6
        for name, (length, n_bytes) in held.items():
            assert length == own
            # Of the lazy average each row has a number of 8 bytes, all others have vectors of 4 d.
            width = 8 if "updates" in name else 4 * SMALL["d_model"]
            assert n_bytes == own * width <= -(-n_rows // len(rows)) * width


def _check_sent(told: list[dict[str, Any]]) -> None:
    for one in told:
        (rows,), width = one["rows"], one["width"]
        assert rows * 8 * width < one["bytes"] <= 1.1 * (8 + 8 * width) * rows


def _check_softmax(found: list[dict[str, Any]]) -> None:
    for one in found:
        for off in (*one["softmax"], one["idle"]):
            assert max(off.pop("loss"), off.pop("losses", 0.0)) <= 1e-6
            assert off.pop("extra row", 0.0) == 0.0
            assert max(off.values()) <= 1e-5


def test_two_processes_with_half_of_the_rows_give_the_bits_of_one(tmp_path: Path) -> None:
    store = sharded.made_store(tmp_path / "data")
    random_log(users=60, items=31, seed=5).write_parquet(tmp_path / "log.parquet")
    taken_up = f"sasrec, clipped{STOPPED}:2"
    sharded.stopped(sharded.made_trainer("sasrec, clipped", 2, store, ALONE), tmp_path / "stopped-1")
    found = _together(2, [taken_up, "bert4rec, not clipped:4", "sasrec, full:2", "fit:2"], tmp_path)

    alone = _alone("sasrec, clipped", 2, store)
    for name in ("stopped here", "stopped on one process"):
        _check_same([one[taken_up][name] for one in found], alone)
    again = sharded.made_trainer("sasrec, clipped", 2, store, ALONE)
    again.restore(tmp_path / "stopped-2" / "checkpoint")
    again.run()
    assert sharded.outcome(again) == alone

    # Without clipping these are the bits of a training that knows nothing of it.
    alone = _alone("bert4rec, not clipped", 4, store, shard_items=False)
    assert any(n % 4 in (1, 3) for n in _batches("bert4rec, not clipped", 4, store))  # a process is idle
    _check_same([one["bert4rec, not clipped:4"]["at once"] for one in found], alone)

    _check_held([one[taken_up]["held"] for one in found], store.n_items)
    _check_sent([one["sent"] for one in found])
    assert found[1]["bert4rec, not clipped:4"]["asked"].startswith("this process has rows 1, 3, ... of the")

    _check_full([one["sasrec, full:2"]["at once"] for one in found], _alone("sasrec, full", 2, store))
    _check_softmax(found)
    sharded.fit(str(tmp_path / "log.parquet"), tmp_path / "run-1")
    digests = {sha256_of(tmp_path / f"run-{size}" / "model.safetensors") for size in (1, 2)}
    assert len(digests) == 1


def _check_full(told: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """The full softmax is that of one process to rounding, and the same in all processes."""
    assert told[0]["history"] == told[1]["history"]
    for here, there in zip(told[0]["history"], alone["history"], strict=True):
        for name in ("loss", "validation_loss"):
            assert here[name] == pytest.approx(there[name], rel=1e-6)
        assert here["valid"] == pytest.approx(there["valid"], abs=0.002)


def test_three_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    store = sharded.made_store(tmp_path / "data")
    found = _together(3, ["mamba, bce:3", "sasrec, clipped:6"], tmp_path)
    assert any(n % 3 for n in _batches("mamba, bce", 3, store))  # processes are idle
    for case, accumulate in (("mamba, bce", 3), ("sasrec, clipped", 6)):
        told = [one[f"{case}:{accumulate}"]["at once"] for one in found]
        _check_same(told, _alone(case, accumulate, store))
    _check_sent([one["sent"] for one in found])
    _check_softmax(found)


def test_clipping_that_does_not_take_hold_changes_no_bit(tmp_path: Path) -> None:
    store = sharded.made_store(tmp_path / "data")
    plain = _alone("sasrec, clipped", 2, store, shard_items=False, gradient_clip=50.0)
    assert _alone("sasrec, clipped", 2, store, gradient_clip=50.0) == plain
    assert CASES["sasrec, clipped"][1]["gradient_clip"] == 0.05
    held = _alone("sasrec, clipped", 2, store)
    assert held["weights"] != plain["weights"]
    assert torch.get_num_threads() == 1
