"""Who is compared, and the taking of turns: ours and a peer, slice by slice, round by round."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from recsys.benchmarks.peers.environments import RECBOLE, RECTOOLS, PeerEnvironment, PeerUnavailable, ensure
from recsys.benchmarks.peers.process import SideError, SideProcess, own_python
from recsys.benchmarks.peers.protocol import Task

# Libraries' worker threads spin for a while after their last parallel region; let them go to sleep.
SETTLE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library's way to train SASRec, and the network of ours that equals its network most nearly.

    Attributes:
        module: side of this package that drives it.
        d_ff, max_length: of both sides.
        block, positions: the kinds that ours takes to match the peer's network.
        batch_size: of the peer, in its own unit: the one that cost it least processor time per event of
            those in ``sweep``.
        sweep: batch sizes that ``--sweep`` tries.
        differs: what is left that is not equal.
    """

    module: str
    environment: PeerEnvironment
    d_ff: int
    max_length: int
    block: str
    positions: str
    batch_size: int
    sweep: tuple[int, ...]
    differs: str


_RECBOLE_DIFFERS = "RecBole normalizes the embeddings once more; its attention is written out, not fused"
PEERS = {
    "recbole": Peer(
        module="recbole_side",
        environment=RECBOLE,
        d_ff=256,
        max_length=200,
        block="postnorm",
        positions="learned",
        batch_size=64,
        sweep=(16, 32, 64, 128),
        differs=_RECBOLE_DIFFERS,
    ),
    "recbole-50": Peer(
        module="recbole_side",
        environment=RECBOLE,
        d_ff=256,
        max_length=50,
        block="postnorm",
        positions="learned",
        batch_size=128,
        sweep=(128, 256, 512, 2048),
        differs=_RECBOLE_DIFFERS,
    ),
    "rectools": Peer(
        module="rectools_side",
        environment=RECTOOLS,
        d_ff=64,
        max_length=200,
        block="sasrec",
        positions="reversed",
        batch_size=8,
        sweep=(8, 16, 32, 128),
        differs="RecTools' attention has an output projection, the authors' block (ours) has none",
    ),
    "rectools-fast": Peer(
        module="rectools_fast_side",
        environment=RECTOOLS,
        d_ff=256,
        max_length=200,
        block="prenorm",
        positions="learned",
        batch_size=8,
        sweep=(8, 16, 32, 128),
        differs="FlatSASRecNet drops out inside the feed-forward layer, ours after the attention",
    ),
}
DEFAULT_PEERS = ("recbole", "rectools", "rectools-fast")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The settings that all pairs share."""

    log: Path
    workdir: Path
    rounds: int
    seconds: float
    threads: int
    d_model: int
    n_layers: int
    n_heads: int
    dropout: float
    learning_rate: float
    batch_events: int
    seed: int
    peer_python: str
    sweep: bool


@dataclass(kw_only=True)
class PairResult:
    """What one pair gave; ``failure`` says in one line why it has no (more) rounds."""

    peer: str
    batch_size: int
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweep: dict[int, float] = field(default_factory=dict)
    warm_up: dict[str, dict[str, Any]] = field(default_factory=dict)
    rounds: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    failure: str | None = None

    def rates(self, side: str) -> list[float]:
        """Events per second of "ours" or "peer", by round."""
        return [part[side]["events_per_second"] for part in self.rounds]

    def ratios(self) -> list[float]:
        """Ours over the peer, by round."""
        return [a / b for a, b in zip(self.rates("ours"), self.rates("peer"), strict=True)]


@dataclass
class _Pair:
    """A pair in the making: its result so far and its processes."""

    result: PairResult
    sides: dict[str, SideProcess] = field(default_factory=dict)

    def attempt(self, what: str, action: Callable[[], None]) -> None:
        """Do something, or record why the pair is out and end its processes."""
        if self.result.failure is not None:
            return
        say(f"{self.result.peer}: {what}")
        try:
            action()
        except (SideError, PeerUnavailable) as error:
            self.result.failure = str(error)
            say(f"{self.result.peer}: left out: {error}")
            self.close()

    def close(self) -> None:
        """End the processes."""
        for side in self.sides.values():
            side.close()


def run(contest: Contest, names: Sequence[str]) -> list[PairResult]:
    """Prepare all pairs, warm each side up, then let them take turns.

    The warm-up slice (compilation, caches, allocator) is kept apart from the rounds. Odd rounds
    start with the peer, so that a drift of the machine's speed favors nobody.
    """
    pairs = [_Pair(PairResult(peer=name, batch_size=PEERS[name].batch_size)) for name in names]
    try:
        for pair in pairs:
            pair.attempt("preparing", partial(_prepare, contest, pair))
        for pair in pairs:
            pair.attempt("warming up", partial(_warm_up, contest, pair))
        for number in range(contest.rounds):
            for pair in pairs:
                what = f"round {number + 1} of {contest.rounds}"
                pair.attempt(what, partial(_round, contest, pair, number))
    finally:
        for pair in pairs:
            pair.close()
    return [pair.result for pair in pairs]


def say(text: str) -> None:
    """One line of progress on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def _prepare(contest: Contest, pair: _Pair) -> None:
    name = pair.result.peer
    peer = PEERS[name]
    interpreter = ensure(peer.environment, contest.workdir, python=contest.peer_python)
    who = {
        "peer": (interpreter, peer.module, peer.batch_size),
        "ours": (own_python(), "ours", contest.batch_events),
    }
    for role, (python, module, batch_size) in who.items():
        folder = contest.workdir / "runs" / f"{name}-{role}"
        pair.sides[role] = SideProcess(f"{name} ({role})", python, module, folder, threads=contest.threads)
        task = Task(
            log=str(contest.log),
            d_model=contest.d_model,
            n_layers=contest.n_layers,
            n_heads=contest.n_heads,
            d_ff=peer.d_ff,
            max_length=peer.max_length,
            dropout=contest.dropout,
            learning_rate=contest.learning_rate,
            batch_size=batch_size,
            seed=contest.seed,
            threads=contest.threads,
            block=peer.block,
            positions=peer.positions,
        )
        pair.result.facts[role] = pair.sides[role].prepare(task)


def _warm_up(contest: Contest, pair: _Pair) -> None:
    for role in ("ours", "peer"):
        pair.result.warm_up[role] = _slice(contest, pair, role)
    if contest.sweep:
        for size in PEERS[pair.result.peer].sweep:
            pair.result.batch_size = size
            # The first slice at a new size pays for new buffers; the median of three hides it.
            rates = [_slice(contest, pair, "peer")["events_per_second"] for _ in range(3)]
            pair.result.sweep[size] = statistics.median(rates)
        pair.result.batch_size = max(pair.result.sweep, key=lambda size: pair.result.sweep[size])


def _round(contest: Contest, pair: _Pair, number: int) -> None:
    order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
    pair.result.rounds.append({role: _slice(contest, pair, role) for role in order})
    ours, peer = (pair.result.rates(role)[-1] for role in ("ours", "peer"))
    say(f"{pair.result.peer}: ours {ours:,.0f}, peer {peer:,.0f} events/s, ratio {ours / peer:.1f}")


def _slice(contest: Contest, pair: _Pair, role: str) -> dict[str, Any]:
    time.sleep(SETTLE_S)
    batch_size = pair.result.batch_size if role == "peer" else contest.batch_events
    return pair.sides[role].train(contest.seconds, batch_size)
