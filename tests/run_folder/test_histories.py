import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run_folder.histories import live

# RECSYS_HISTORIES=SEED:COUNT tries others, and more of them.
FIRST, COUNT = (int(part) for part in os.environ.get("RECSYS_HISTORIES", "0:25").split(":"))
GROUPS = 5


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    # A picture takes longer than the training of these models.
    def draw(history: list[Any], folder: Path, **_: Any) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "training.png").write_bytes(b"drawn")

    monkeypatch.setattr("recsys.run_folder.fitting.plot_training", draw)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_run_folder_is_never_harmed_and_never_lies(group: int, tmp_path: Path) -> None:
    for number in range(group, COUNT, GROUPS):
        folder = tmp_path / str(number)
        folder.mkdir()
        live(folder, FIRST + number)
