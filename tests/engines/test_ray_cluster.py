"""A cluster of one call: by itself, and gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.engines.ray_cluster import remove_left_folders

OWN = r"""
import os, signal, sys
from pathlib import Path
from recsys.engines.ray_cluster import ray_cluster

before = dict(os.environ)
signal.signal(signal.SIGTERM, lambda *_: None)
ours = signal.getsignal(signal.SIGTERM)
with ray_cluster(None, cpus=1) as ray:
    (node,) = ray.nodes()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert signal.getsignal(signal.SIGTERM) is ours
    print("told")
assert signal.getsignal(signal.SIGTERM) is ours
assert token and dict(os.environ).get("RAY_AUTH_TOKEN") is None
print(node["NodeManagerAddress"], os.environ.get("RAY_USAGE_STATS_ENABLED"), file=sys.stderr)
"""


def test_a_cluster_of_one_call_keeps_to_itself(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'recsys-engine[ray]'")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", OWN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    told, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    # What is printed while Ray runs goes where its own words go.
    assert told == ""
    assert said.splitlines()[-1] == "127.0.0.1 None"
    assert not (tmp_path / "home").exists()
    assert not list(Path("/tmp").glob(f"recsys-ray-{process.pid}-*"))


def test_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    monkeypatch.setattr("recsys.engines.ray_cluster._short_folder", lambda: str(tmp_path))
    mine = [tmp_path / f"recsys-ray-{os.getpid()}-a", tmp_path / "recsys-ray-notes"]
    for folder in (*mine, tmp_path / f"recsys-ray-{ended.pid}-b"):
        (folder / "logs").mkdir(parents=True)
    remove_left_folders()
    assert sorted(tmp_path.iterdir()) == sorted(mine)
