"""Encoders of others: by a module that is imported, by an entry point; runs that need one."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders import registry
from recsys.encoders.registry import encoder_names, load_plugin, registration
from recsys.errors import ConfigError, RunError

OWN = Path(__file__).with_name("own_encoder.py")
QUICK: dict[str, Any] = {"epochs": 1, "batch_events": 256}


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder on the path for modules; what they register is unknown again afterwards."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()
    yield tmp_path / "site"
    for path in (tmp_path / "site").glob("*.py"):
        sys.modules.pop(path.stem, None)


def _announce(site: Path, text: str) -> None:
    info = site / "someones_encoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-encoders\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[recsys.encoders]\n{text}\n")


def test_an_entry_point_is_loaded_when_its_name_is_asked_for(forgotten: Path) -> None:
    shutil.copy(OWN, forgotten / "someones_encoders.py")
    _announce(forgotten, "last-item = someones_encoders:LastItem")
    assert "last-item" in encoder_names()
    assert "someones_encoders" not in sys.modules
    assert registration("Last Item").encoder.__name__ == "LastItem"


def test_an_entry_point_that_registers_another_name_is_one_line(forgotten: Path) -> None:
    (forgotten / "someones_encoders.py").write_text("LastItem = 3\n")
    _announce(forgotten, "last-item = someones_encoders:LastItem")
    with pytest.raises(ConfigError, match="announced as the encoder 'last-item' but registers none"):
        registration("last-item")


@pytest.mark.parametrize(
    ("plugin", "text", "message"),
    [
        ("nowhere", None, "no module 'nowhere' to load encoders from"),
        ("someones.part", None, "no module 'someones.part'"),
        ("broken", "import not_installed_here\n", "'broken' cannot be imported .*No module named"),
        ("broken", "1 / 0\n", "'broken' cannot be imported .ZeroDivisionError: division by zero"),
        ("fine:Encoder", "", "the module 'fine' has no 'Encoder'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(
    forgotten: Path, plugin: str, text: str | None, message: str
) -> None:
    if text is not None:
        (forgotten / f"{plugin.partition(':')[0]}.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_plugin(plugin)
    assert "\n" not in str(caught.value)


def test_a_run_of_an_unknown_encoder_says_what_it_needs(
    forgotten: Path, store: SequenceStore, tmp_path: Path
) -> None:
    shutil.copy(OWN, forgotten / "someones_encoders.py")
    load_plugin("someones_encoders:LastItem")
    model = recsys.Recommender(
        "last-item", encoder_options={"d_model": 8, "scale": 2.0}, training_options=QUICK, index="exact"
    ).fit(store, out=tmp_path / "run")
    answer = model.recommend(users=[3])
    loaded = recsys.load(tmp_path / "run", index="exact")
    assert loaded.recommend(users=[3]).equals(answer)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (manifest["encoder"], manifest["encoder_module"]) == ("last-item", "someones_encoders")
    registry._REGISTRY.pop("last-item")
    with pytest.raises(RunError) as caught:
        recsys.load(tmp_path / "run")
    assert "encoder 'last-item' is not built in: import someones_encoders first" in str(caught.value)
    assert "damaged" not in str(caught.value)
