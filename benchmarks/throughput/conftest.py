"""Threads, sizes and the machine of the throughput tests.

Without timing (``--benchmark-disable``, or several workers) everything runs once, at tiny sizes, as a test.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from recsys.benchmarks.kernels.limits import measure_limits
from recsys.benchmarks.machine import stamp
from recsys.benchmarks.throughput.meter import Meter
from recsys.benchmarks.throughput.sizes import SMALL, Sizes, sizes_of
from recsys.benchmarks.training import made_store
from recsys.datasets.prepared.store import SequenceStore

LIMITS = pytest.StashKey[dict[str, float]]()
FACTS = ("cpu", "cores", "threads", "gpu", "system", "python", "torch", "numba")


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    return sizes_of(pytestconfig)


def _threads_wanted() -> int:
    """One, or as many as OMP_NUM_THREADS says: ratios of two runs then mean something."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


@contextlib.contextmanager
def _threads_set() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(_threads_wanted())
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with _threads_set():
        yield


@pytest.fixture(scope="session")
def _limits(sizes: Sizes, pytestconfig: pytest.Config) -> dict[str, float] | None:
    if sizes is SMALL:
        return None
    with _threads_set():
        limits = pytestconfig.stash[LIMITS] = measure_limits(torch.device("cpu"))
    return limits


@pytest.fixture
def meter(benchmark: Any, _limits: dict[str, float] | None) -> Meter:
    return Meter(benchmark, _limits)


@pytest.fixture(scope="session")
def store(sizes: Sizes) -> SequenceStore:
    return made_store(users=sizes.users, items=sizes.items)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Record what our other records have of the machine, but for the load, and not its name."""
    machine = stamp()["machine"]
    machine_info.clear()
    machine_info.update({name: machine[name] for name in FACTS})


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    """Leave out what the clone and the branch happen to be called."""
    for name in ("project", "branch"):
        commit_info.pop(name, None)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Record the limits that shares are of."""
    output_json["limits"] = config.stash.get(LIMITS, None)


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: Any
) -> None:
    """Say on what machine a run was made that is compared with, if it is another one."""
    theirs, ours = compared_benchmark["machine_info"], machine_info
    apart = [
        f"{name} {theirs.get(name)} then, {ours[name]} now"
        for name in FACTS
        if theirs.get(name) != ours[name]
    ]
    if apart:
        reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"Another machine than that of the compared run: {'; '.join(apart)}")
    # The plugin's own check, which comes next, would warn in its words, and fails where the run is elsewhere.
    compared_benchmark["machine_info"] = machine_info


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Less time for each than pytest-benchmark's second: there are hundreds.

    One thread is timed by the processor time of the process, which busy neighbours touch least and which on
    an idle machine is latency; several threads by the clock.
    """
    timer = time.process_time if _threads_wanted() == 1 else time.perf_counter
    for item in items:
        item.add_marker(pytest.mark.benchmark(min_rounds=5, max_time=0.3, disable_gc=True, timer=timer))
