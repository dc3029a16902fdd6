import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numba.core import caching

from recsys.kernels.shared.vector import code_cache
from recsys.kernels.shared.vector.code_cache import CodeCache, CodeFiles

KERNEL = """
import sys
import numpy as np
from recsys.kernels.shared.vector import compiled

@compiled
def square(x):
    return x * x

x = np.float32(0.1) if sys.argv[1] == "single" else 0.1
print(square(x), sum(square.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("step", ["_load_index", "_save_data", "_save_index"])
def test_a_writer_between_the_steps_of_another_never_has_its_code_under_the_others_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, stale: bool
) -> None:
    one, other = (CodeFiles(str(tmp_path), "kernel", "source") for _ in range(2))
    if stale:  # the other has read the index before the one wrote to it
        monkeypatch.setattr(other, "_load_index", dict)

    def interrupted(*args: Any) -> Any:
        monkeypatch.delattr(one, step)
        other.save("double", "code for doubles")
        return getattr(one, step)(*args)

    monkeypatch.setattr(one, step, interrupted, raising=False)
    one.save("single", "code for singles")
    reader = CodeFiles(str(tmp_path), "kernel", "source")
    found = [reader.load(key) for key in ("single", "double")]
    assert found[0] in ("code for singles", None)
    assert found[1] in ("code for doubles", None)
    assert found != [None, None]


def test_all_that_was_written_in_turn_is_found_and_a_changed_source_finds_nothing(tmp_path: Path) -> None:
    files = CodeFiles(str(tmp_path), "kernel", "source")
    for key in range(5):
        files.save(key, f"code {key}")
    files.save(2, "code 2 again")
    assert [files.load(key) for key in range(6)] == [
        "code 0",
        "code 1",
        "code 2 again",
        "code 3",
        "code 4",
        None,
    ]
    assert CodeFiles(str(tmp_path), "kernel", "another source").load(0) is None


def test_a_process_loads_what_others_compiled_for_its_own_types(tmp_path: Path) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(KERNEL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

    def run(types: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, str(path), types], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    single, double = [run(types) for types in ("single", "double")]
    assert [single[1], double[1]] == ["0", "0"]
    assert single[0] != double[0]
    assert [run(types) for types in ("single", "double")] == [[single[0], "1"], [double[0], "1"]]


def _read_only_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function whose package's folder cannot be written, by root neither."""
    path = tmp_path / "package" / "kernel.py"
    path.parent.mkdir()
    path.write_text("def kernel(x):\n    return x\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    refused = [str(path.parent)]
    ensure = code_cache._InTree.ensure_cache_path

    def refuse(locator: Any) -> None:
        if any(locator.get_cache_path().startswith(folder) for folder in refused):
            raise PermissionError(locator.get_cache_path())
        ensure(locator)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", refuse)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return names["kernel"], refused


def test_code_goes_where_it_can_be_written_and_is_read_where_the_source_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, refused = _read_only_package(tmp_path, monkeypatch)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    chosen = CodeCache(kernel)
    assert Path(chosen.cache_path).parent == tmp_path / "cache" / "kernels"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    refused += [str(tmp_path / "cache"), str(tmp_path / "home")]
    own = Path(CodeCache(kernel).cache_path)
    assert own.parent.parent == tmp_path / "tmp"
    assert own.parent.stat().st_mode & 0o077 == 0
    own.parent.chmod(0o777)  # anybody might put code there
    with pytest.raises(RuntimeError, match="no locator"):
        CodeCache(kernel)
    packaged = tmp_path / "package" / "__pycache__"
    packaged.mkdir()
    name, stamp = chosen._impl.filename_base, chosen._impl.locator.get_source_stamp()
    CodeFiles(str(packaged), name, stamp).save("key", "code")
    monkeypatch.setattr(chosen, "_index_key", lambda *_: "key")
    monkeypatch.setattr(chosen._impl, "rebuild", lambda context, data: data)
    assert chosen._load_overload(None, SimpleNamespace(codegen=lambda: None)) == "code"


def test_an_index_of_types_that_are_gone_is_an_empty_one(tmp_path: Path) -> None:
    gone = type("Gone", (), {"__module__": code_cache.__name__, "__qualname__": "Gone"})
    code_cache.Gone = gone  # type: ignore[attr-defined]
    try:
        CodeFiles(str(tmp_path), "kernel", "source").save(gone, "code")
    finally:
        del code_cache.Gone  # type: ignore[attr-defined]
    files = CodeFiles(str(tmp_path), "kernel", "source")
    assert files.load("double") is None
    files.save("double", "code for doubles")
    assert files.load("double") == "code for doubles"
