from pathlib import Path

import numpy as np
import pytest

RECIPE = """
model = "sasrec"
seeds = [0, 1]
note = "small"
bar = { hr = 0.0, ndcg = 0.9 }
aim = { hr = 0.0, ndcg = 0.0, seen = "kept" }

[encoder]
d_model = 16
n_layers = 1
max_length = 8
[training]
epochs = 2

[[published]]
name = "somebody"
hr = 0.5
ndcg = 0.25
source = "a paper"
"""


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """As many as the figures are of."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A log, and recipes for it: an encoder and a floor."""
    rng = np.random.default_rng(0)
    lines = [f"{user} {item}" for user in range(1, 31) for item in rng.permutation(20)[:6] + 1]
    (tmp_path / "toy.txt").write_text("\n".join(lines) + "\n")
    folder = tmp_path / "recipes" / "toy"
    folder.mkdir(parents=True)
    sha = _sha256(tmp_path / "toy.txt")
    (folder / "dataset.toml").write_text(f'name = "toy"\nabout = "made"\nsha256 = "{sha}"\n')
    (folder / "sasrec-small.toml").write_text(RECIPE)
    (folder / "knn.toml").write_text('model = "item-knn"\n[floor]\nneighbors = [1, 5]\n')
    return tmp_path


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
