"""What a peer is given by the log, and the files that its sides read and write."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recsys.benchmarks.peers import contest, quality, sasrec_training
from recsys.benchmarks.peers.held_out import read_events
from recsys.benchmarks.peers.log_file import write_log
from recsys.benchmarks.peers.suiting import cheapest, choice, first_batch, suited_length
from recsys.benchmarks.peers.vectors import last_windows, save_vectors


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        # Up from 8 until it costs more again, down where the first step up does, and both ends of the range.
        (64, [8, 16, 32, 64, 128]),
        (2, [8, 16, 4, 2, 1]),
        (8, [8, 16, 4]),
        (4096, [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]),
        (1, [8, 16, 4, 2, 1]),
    ],
)
def test_the_search_for_a_batch_follows_the_falling_cost(best: int, tried: list[int]) -> None:
    asked: list[int] = []

    def cost(size: int) -> float:
        asked.append(size)
        return abs(math.log2(size / best))

    found = cheapest(cost, 8)
    assert asked == tried
    assert list(found) == tried
    assert choice(found) == best


def test_the_length_is_the_logs_and_the_first_batch_has_as_many_positions(tmp_path: Path) -> None:
    # 19 users of 6 events and one of 500: without the two held out, 95% have at most 4.
    rows = [(user, item, item) for user in range(19) for item in range(6)]
    rows += [(19, item, item) for item in range(500)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "pos"], orient="row").write_parquet(
        tmp_path / "log.parquet"
    )
    facts = write_log(tmp_path / "log.parquet", tmp_path / "log.npy")
    assert facts.training_pairs == 19 * 3 + 497
    assert facts.history_95 == 29  # between the two longest: 4 + (498 - 4) * 0.05
    assert suited_length(facts.history_95, 200) == 29
    assert suited_length(facts.history_95, 20) == 20
    assert suited_length(1, 200) == 2
    assert first_batch(1600, 200) == 8
    assert first_batch(1600, 29) == 32
    assert first_batch(10, 200) == 1
    assert first_batch(10**9, 2) == 4096


def test_every_peer_is_planned_with_the_logs_length() -> None:
    for name, peer in contest.PEERS.items():
        planned = contest._planned(_contest(history=19), name)
        assert planned.max_length == 19
        assert planned.batch_size * 19 <= peer.positions_first < planned.batch_size * 38
        assert contest._planned(_contest(history=900, batch_size=3), name).batch_size == 3
        assert contest._planned(_contest(history=900), name).max_length == peer.longest
    for name in set(quality.PEERS) & set(contest.PEERS):
        assert quality.PEERS[name].environment == contest.PEERS[name].environment
        assert quality.PEERS[name].slices == contest.PEERS[name].module
        assert quality.PEERS[name].d_ff == contest.PEERS[name].d_ff


def test_a_contest_searches_each_batch_and_turns_with_the_cheapest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Side:
        def train(self, seconds: float, size: int) -> dict[str, float]:
            return {"cpu_us_per_event": 1 + abs(size - 128), "events_per_second": 1.0, "loss": 1.0}

    monkeypatch.setattr(contest, "SETTLE_S", 0)
    found = contest._planned(_contest(history=19), "rectools")
    pair = contest._Pair(found, {"ours": Side(), "peer": Side()})  # type: ignore[dict-item]
    contest._warm_up(_contest(history=19), pair)
    assert found.search == {64: 65, 128: 1, 256: 129}
    assert found.batch_size == 128


def _contest(*, history: int, batch_size: int = 0) -> contest.Contest:
    return contest.Contest(
        log=Path(),
        history=history,
        workdir=Path(),
        rounds=1,
        seconds=1.0,
        threads=1,
        d_model=8,
        n_layers=1,
        n_heads=1,
        dropout=0.0,
        learning_rate=1e-3,
        batch_events=64,
        seed=0,
        peer_python="",
        batch_size=batch_size,
    )


def test_held_out_events_and_the_file_of_vectors(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    log = str(tmp_path / "log.npy")
    np.save(log, np.array([(1, 3, 0), (1, 1, 1), (1, 4, 2), (2, 2, 0), (2, 3, 1), (3, 1, 0)]))
    assert read_events(log, held_out=1)[["user_id", "item_id"]].to_numpy().tolist() == [
        [1, 3],
        [1, 1],
        [2, 2],
    ]
    assert last_windows([[3, 1, 4], [2]], 2, padding=9).tolist() == [[1, 4], [9, 2]]
    path = tmp_path / "vectors.npz"
    states, vectors = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])
    save_vectors(str(path), log, [1, 3], states, [2], vectors)
    with np.load(path) as found:
        assert found["states"].tolist() == [[1, 2], [0, 0], [3, 4]]
        assert found["items"].tolist() == [[0, 0], [5, 6], [0, 0], [0, 0]]
        assert found["known"].tolist() == [False, True, False, False]
        assert found["states"].dtype == np.float32


def test_a_negative_batch_is_a_users_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sasrec_training.main(["--log", str(tmp_path / "no.parquet"), "--batch-size", "-1"]) == 2
    assert capsys.readouterr().err == "error: --batch-size must be at least 0\n"
