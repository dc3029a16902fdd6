"""What was in service last is what the same command begins with; another command begins with its own."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recsys.serving.engine.engine import ServingEngine
from recsys.serving.remembering import resumed, said_with_remedy
from recsys.serving.settings import ServeSettings
from tests.serving.engine.runs import saved_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remembering") / "runs"
    folder.mkdir()
    saved_run(folder / "monday")
    saved_run(folder / "tuesday", d_model=8)
    return folder


def settings_of(runs: Path, **more: object) -> ServeSettings:
    given = {"models": (("default", str(runs / "monday"), 1.0),), "models_dir": str(runs), "deadline": 60.0}
    return ServeSettings(**(given | more))  # type: ignore[arg-type]


def begun(settings: ServeSettings, folder: Path) -> ServingEngine:
    folder.mkdir()
    engine = ServingEngine(ServeSettings.from_json(settings.to_json()), None, None, folder)
    engine.load()
    return engine


def test_the_last_change_outlives_the_service(runs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = resumed(settings_of(runs), said.append)
    assert (settings.resumed, said) == ((), [])
    engine = begun(settings, tmp_path / "first")
    asyncio.run(engine.load_model("default", "tuesday"))
    asyncio.run(engine.load_model("b", "monday", weight=2.0, shadow=5.0))
    before = engine.models()
    engine.end()

    again = resumed(settings_of(runs), said.append)
    assert again.kept == settings.kept
    tuesday, monday = (str((runs / name).resolve()) for name in ("tuesday", "monday"))
    assert said.pop() == (
        f"Beginning with what was in service last: default={tuesday}, b={monday} "
        f"(remove {settings.kept} to begin with the models of the command line)"
    )
    engine = begun(again, tmp_path / "second")
    assert [(m.name, m.version, m.weight, m.shadow) for m in engine.models()] == [
        (m.name, m.version, m.weight, m.shadow) for m in before
    ]
    assert "default=" not in said_with_remedy("damaged", again)
    assert said_with_remedy("damaged", again).endswith(
        f"remove {settings.kept} to begin with the models of the command line"
    )
    # Back to what the command line says: nothing to tell.
    asyncio.run(engine.load_model("default", "monday"))
    asyncio.run(engine.unload_model("b"))
    engine.end()
    assert resumed(settings_of(runs), said.append).resumed == ()
    assert said == []


def test_another_command_begins_with_its_own_models(runs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    engine = begun(resumed(settings_of(runs), said.append), tmp_path / "first")
    asyncio.run(engine.load_model("default", "tuesday"))
    engine.end()
    other = settings_of(
        runs, models=(("default", str(runs / "monday"), 1.0), ("b", str(runs / "monday"), 1.0))
    )
    assert resumed(other, said.append).resumed == ()
    assert resumed(settings_of(runs, models_dir=None), said.append).kept is None
    assert said == []
    assert said_with_remedy("damaged", other) == "damaged"


def test_what_cannot_be_gone_on_with_is_said_and_the_command_line_holds(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(runs, folder)
    said: list[str] = []
    settings = resumed(settings_of(folder), said.append)
    engine = begun(settings, tmp_path / "first")
    asyncio.run(engine.load_model("default", "tuesday"))
    engine.end()
    shutil.rmtree(folder / "tuesday")
    said.clear()
    assert resumed(settings_of(folder), said.append) == settings
    assert "in service last as default, is gone; beginning with the models of the command line" in said.pop()
    Path(str(settings.kept)).write_text('{"models": [{"name": 1}]}')
    assert resumed(settings_of(folder), said.append) == settings
    assert "is damaged; beginning with the models of the command line" in said.pop()


def test_a_folder_that_cannot_be_written_hinders_no_change(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings_of(runs), kept=str(tmp_path / "nowhere" / "file.json"))
    (tmp_path / "nowhere").write_text("a file")
    engine = begun(settings, tmp_path / "first")
    try:
        version = asyncio.run(engine.load_model("default", "tuesday")).version
        assert engine.models()[0].version == version
        assert "the next start begins with the models of the command line" in caplog.text
    finally:
        engine.end()
