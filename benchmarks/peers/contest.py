"""Who is compared, and the taking of turns: ours and a peer, slice by slice, round by round."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from recsys.benchmarks.peers.environments import (
    RECBOLE,
    RECTOOLS,
    REPLAY,
    PeerEnvironment,
    PeerUnavailable,
    ensure,
)
from recsys.benchmarks.peers.process import SideError, SideProcess, own_python
from recsys.benchmarks.peers.protocol import Task
from recsys.benchmarks.peers.suiting import cheapest, choice, first_batch, suited_length

# Libraries' worker threads spin for a while after their last parallel region; let them go to sleep.
SETTLE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library's way to train a model, and the network of ours that equals its network most nearly.

    Attributes:
        module: side of this package that drives it.
        encoder: ours that is compared.
        d_ff: of both sides.
        longest: length of history, on both sides, where the log's histories are longer.
        block, positions: the kinds that ours takes to match the peer's network.
        positions_first: positions of the batch that the search for the cheapest one begins with.
        differs: what is left that is not equal.
    """

    module: str
    environment: PeerEnvironment
    encoder: str = "sasrec"
    d_ff: int
    longest: int = 200
    block: str
    positions: str
    positions_first: int
    differs: str


_RECBOLE = Peer(
    module="recbole_side",
    environment=RECBOLE,
    d_ff=256,
    block="postnorm",
    positions="learned",
    positions_first=12_800,
    differs="RecBole normalizes the embeddings once more; its attention is written out, not fused",
)
PEERS = {
    "recbole": _RECBOLE,
    "recbole-50": replace(_RECBOLE, longest=50),
    "rectools": Peer(
        module="rectools_side",
        environment=RECTOOLS,
        d_ff=64,
        block="sasrec",
        positions="reversed",
        positions_first=1_600,
        differs="RecTools' attention has an output projection, the authors' block (ours) has none",
    ),
    "rectools-fast": Peer(
        module="rectools_fast_side",
        environment=RECTOOLS,
        d_ff=256,
        block="prenorm",
        positions="learned",
        positions_first=1_600,
        differs="FlatSASRecNet drops out inside the feed-forward layer, ours after the attention",
    ),
    "rectools-bert4rec": Peer(
        module="rectools_bert4rec_side",
        environment=RECTOOLS,
        encoder="bert4rec",
        d_ff=256,
        block="prenorm",
        positions="reversed",
        positions_first=1_600,
        differs="RecTools computes the loss of every position, masked or not",
    ),
    "replay": Peer(
        module="replay_side",
        environment=REPLAY,
        d_ff=64,
        block="sasrec",
        positions="reversed",
        positions_first=1_600,
        differs="RePlay's attention has an output projection, and it predicts a sequence's first item, too",
    ),
}
DEFAULT_PEERS = ("recbole", "rectools", "rectools-fast", "rectools-bert4rec", "replay")


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The settings that all pairs share.

    Attributes:
        history: `LogFacts.history_95`, by which lengths are chosen.
        batch_size: of every peer, in place of the search; 0 to search.
    """

    log: Path
    history: int
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
    batch_size: int


@dataclass(kw_only=True)
class PairResult:
    """What one pair gave; ``failure`` says in one line why it has no (more) rounds.

    Attributes:
        max_length: of both sides.
        batch_size: of the peer, in its own unit.
        search: processor microseconds an event by batch size, as far as sizes were tried.
    """

    peer: str
    max_length: int
    batch_size: int
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    search: dict[int, float] = field(default_factory=dict)
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
    pairs = [_Pair(_planned(contest, name)) for name in names]
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


def search_batch(peer: str, train: Callable[[int], Mapping[str, Any]], start: int) -> dict[int, float]:
    """Processor microseconds an event by batch size, as far as sizes were tried.

    Args:
        peer: its name.
        train: a slice with batches of a size.
        start: first size.
    """

    def cost(size: int) -> float:
        # The lesser of two slices: the first one pays for new buffers.
        found = min(float(train(size)["cpu_us_per_event"]) for _ in range(2))
        say(f"{peer}: batches of {size}: {found:,.0f} us an event")
        return found

    return cheapest(cost, start)


def _planned(contest: Contest, name: str) -> PairResult:
    peer = PEERS[name]
    length = suited_length(contest.history, peer.longest)
    batch_size = contest.batch_size or first_batch(peer.positions_first, length)
    return PairResult(peer=name, max_length=length, batch_size=batch_size)


def _prepare(contest: Contest, pair: _Pair) -> None:
    name = pair.result.peer
    peer = PEERS[name]
    interpreter = ensure(peer.environment, contest.workdir, python=contest.peer_python)
    who = {
        "peer": (interpreter, peer.module, pair.result.batch_size),
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
            max_length=pair.result.max_length,
            dropout=contest.dropout,
            learning_rate=contest.learning_rate,
            batch_size=batch_size,
            seed=contest.seed,
            threads=contest.threads,
            block=peer.block,
            positions=peer.positions,
            encoder=peer.encoder,
        )
        pair.result.facts[role] = pair.sides[role].prepare(task)


def _warm_up(contest: Contest, pair: _Pair) -> None:
    for role in ("ours", "peer"):
        pair.result.warm_up[role] = _slice(contest, pair, role)
    if not contest.batch_size:

        def train(size: int) -> dict[str, Any]:
            pair.result.batch_size = size
            return _slice(contest, pair, "peer")

        pair.result.search = search_batch(pair.result.peer, train, pair.result.batch_size)
        pair.result.batch_size = choice(pair.result.search)


def _round(contest: Contest, pair: _Pair, number: int) -> None:
    order = ("ours", "peer") if number % 2 == 0 else ("peer", "ours")
    pair.result.rounds.append({role: _slice(contest, pair, role) for role in order})
    ours, peer = (pair.result.rates(role)[-1] for role in ("ours", "peer"))
    say(f"{pair.result.peer}: ours {ours:,.0f}, peer {peer:,.0f} events/s, ratio {ours / peer:.1f}")


def _slice(contest: Contest, pair: _Pair, role: str) -> dict[str, Any]:
    time.sleep(SETTLE_S)
    batch_size = pair.result.batch_size if role == "peer" else contest.batch_events
    return pair.sides[role].train(contest.seconds, batch_size)
