"""Two processes that share no network stack, as on two machines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recsys.benchmarks.scale.namespaces import cable, sent
from recsys.errors import RunError
from tests.training.processes import cases
from tests.training.processes.launching import ROOT, environment

CASE = "bert4rec, hashed, sampled"


def test_two_network_namespaces_give_the_bits_of_one_process(tmp_path: Path) -> None:
    try:
        with cable():
            pass
    except RunError as error:
        pytest.skip(f"no network namespaces here: {error}")
    out = tmp_path / "out"
    with cable() as ends:
        started = [
            subprocess.Popen(
                [
                    *("ip", "netns", "exec", name, sys.executable, "-m", "tests.training.processes.cases"),
                    *(str(out), f"{CASE}:2"),
                ],
                cwd=ROOT,
                env={**environment(rank, 2, 29500), "MASTER_ADDR": ends[0][2], "GLOO_SOCKET_IFNAME": card},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank, (name, card, _) in enumerate(ends)
        ]
        for process in started:
            _, said = process.communicate(timeout=240)
            assert process.returncode == 0, said
        assert min(sent(ends)) > 100_000
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = cases.train(CASE, 2, tmp_path / "data")
    finally:
        torch.set_num_threads(threads)
    for rank in (0, 1):
        found = json.loads(Path(f"{out}-{rank}").read_text(encoding="utf-8"))
        assert found[f"{CASE}:2"] == alone
