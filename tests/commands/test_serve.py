"""`recsys serve` before it serves, and `recsys keys`, as a user meets them."""

import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from recsys.serving import process
from recsys.serving.http.keys import Keys
from recsys.serving.settings import ServeSettings
from tests.command_line import call


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """The settings that a service would begin with."""
    found: list[ServeSettings] = []
    monkeypatch.setattr(process, "serve", lambda settings, say: found.append(settings))
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    return folder


def test_events_lie_beside_the_run_not_in_it(served: list[ServeSettings], run: Path) -> None:
    assert call("serve", run).returncode == 0
    assert call("serve", run, "--no-events").returncode == 0
    assert call("serve", run, "--events", "postgresql://db/shop").returncode == 0
    assert [each.events for each in served] == [f"{run}.events.db", None, "postgresql://db/shop"]
    assert served[0].models == (("default", str(run), 1.0),)


def test_events_of_no_name_are_not_kept_elsewhere(served: list[ServeSettings], run: Path) -> None:
    found = call("serve", run, "--events", "")
    assert (found.returncode, served) == (2, [])
    assert "--no-events" in found.stderr


def test_models_share_the_users_and_shadows_the_requests(served: list[ServeSettings], run: Path) -> None:
    options = ("--model", f"now={run}:90", "--model", f"new={run}", "--shadow", f"next={run}:5")
    assert call("serve", *options).returncode == 0
    (found,) = served
    assert found.models == (("now", str(run), 90.0), ("new", str(run), 1.0))
    assert found.shadows == (("next", str(run), 5.0),)


def test_a_worker_is_handed_what_the_command_line_says(served: list[ServeSettings], run: Path) -> None:
    options = ("--cors", "https://shop.example", "--log-users", "--no-page", "--drain", "1", "--workers", "3")
    assert call("serve", run, *options).returncode == 0
    (found,) = served
    assert ServeSettings.from_json(found.to_json()) == found
    assert (found.cors, found.log_users, found.page) == (("https://shop.example",), True, False)
    assert (found.drain, found.workers) == (1.0, 3)


def test_a_missing_library_is_a_line_with_the_extra(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setitem(sys.modules, "granian", None)
    found = call("serve", run)
    assert found.returncode == 2
    assert found.stderr == (
        "Error: granian is not installed, which `recsys serve` needs: pip install 'recsys-engine[serve]'\n"
    )


def test_a_key_is_printed_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    secrets: dict[str, Any] = {}
    for name, scopes in (("shop", "read,write"), ("ops", "admin")):
        made = call("keys", "new", name, "--scopes", scopes, "--file", file)
        assert made.returncode == 0
        secrets[name] = made.stdout.strip()
        assert len(secrets[name]) >= 43
        assert secrets[name] not in made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = Keys.read(file)
    shop = keys.of_secret(secrets["shop"])
    assert shop is not None
    assert (shop.name, shop.scopes) == ("shop", frozenset(("read", "write")))
    ops = keys.of_secret(secrets["ops"])
    assert ops is not None
    assert (ops.name, ops.scopes) == ("ops", frozenset(("admin",)))
    assert not any(secret in file.read_text() for secret in secrets.values())
    (tmp_path / "room.toml").touch()
    assert call("keys", "new", "first", "--file", tmp_path / "room.toml").returncode == 0
    before = file.read_text()
    again = call("keys", "new", "shop", "--file", file)
    assert (again.returncode, again.stdout) == (2, "")
    assert "another name" in again.stderr
    assert file.read_text() == before
