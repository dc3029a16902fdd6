"""A Ray cluster of this machine for tests, two nodes of one processor each, and its processes by id."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class TestCluster:
    """Two nodes; whoever takes one away puts another in its place."""

    __test__ = False

    def __init__(self, folder: str) -> None:
        from ray.cluster_utils import Cluster

        self._own = {"object_store_memory": 80 * 2**20, "node_ip_address": "127.0.0.1", "num_cpus": 1}
        self._cluster = Cluster(
            initialize_head=True, head_node_args={**self._own, "include_dashboard": False, "temp_dir": folder}
        )
        self.address = str(self._cluster.address)
        self.add_second()

    def add_second(self) -> None:
        self._second = self._cluster.add_node(**self._own)

    def remove_second(self) -> None:
        """As a machine is lost, without a word."""
        self._cluster.remove_node(self._second, allow_graceful=False)

    def workers(self, named: str) -> list[int]:
        """Processes of this cluster that do work of an actor or task with this in its name."""
        raylets = {
            started.process.pid
            for node in self._cluster.list_all_nodes()
            for started in node.all_processes.get("raylet", [])
        }
        return [pid for pid in _processes() if _parent(pid) in raylets and named in _title(pid)]

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def cluster() -> Iterator[TestCluster]:
    """The cluster, with what its processes read in the environment."""
    before = {name: os.environ.get(name) for name in SETTINGS}
    os.environ.update(SETTINGS)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it: their names are short
    started = TestCluster(folder)
    try:
        yield started
    finally:
        started.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
