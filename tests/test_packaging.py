"""What is installed, and what is loaded when nothing has been asked for yet."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import recsys

ROOT = Path(__file__).parents[1]
FOLDERS = ("kernels", "datasets", "benchmarks")
HEAVY = ("torch", "polars", "numba", "faiss", "matplotlib", "pyarrow", "numpy", "ray")


def _python(code: str, cwd: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    loaded = _python(
        f"import sys, recsys, recsys.commands.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert loaded == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['recsys', '--help']\nfrom recsys.commands.app import main\n"
        f"try: main()\nexcept SystemExit: pass\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert _python(code).splitlines()[-1] == "[]"


def test_public_names_exist_and_unknown_ones_do_not() -> None:
    for name in recsys.__all__:
        assert getattr(recsys, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        recsys.nothing  # noqa: B018
    assert set(recsys.__all__) <= set(dir(recsys))


def test_ground_floor_folders_have_no_init() -> None:
    for folder in FOLDERS:
        assert not (ROOT / folder / "__init__.py").exists()
        assert (ROOT / "recsys" / folder).is_symlink()
        assert os.readlink(ROOT / "recsys" / folder) == f"../{folder}"


@pytest.mark.parametrize("name", FOLDERS)
def test_another_package_of_that_name_wins_from_the_root(name: str, tmp_path: Path) -> None:
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("whose = 'theirs'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import {name}; print({name}.whose)"
    assert _python(code) == "theirs"


@pytest.mark.slow
def test_the_wheel_holds_recsys_alone_and_all_of_it(tmp_path: Path) -> None:
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    copy = tmp_path / "tree"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and (source.exists() or source.is_symlink()):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            else:
                target.write_bytes(source.read_bytes())
    wheel = tmp_path / _python(code, cwd=copy).splitlines()[-1]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    inside = [n for n in names if ".dist-info/" not in n]
    assert {n.split("/")[0] for n in inside} == {"recsys"}
    assert len(inside) == len(set(inside))
    expected = {f"recsys/{p.relative_to(copy / 'recsys')}" for p in (copy / "recsys").glob("**/*.py")}
    for folder in FOLDERS:
        expected |= {f"recsys/{folder}/{p.relative_to(copy / folder)}" for p in (copy / folder).rglob("*.py")}
    assert {n for n in inside if n.endswith(".py")} == expected
    assert "recsys/py.typed" in inside
    recipes = (copy / "benchmarks" / "accuracy").glob("*/**/*.toml")
    records = (copy / "benchmarks" / "results" / "accuracy").glob("*/*.json")
    wanted = {f"recsys/{path.relative_to(copy)}" for path in (*recipes, *records)}
    assert len(wanted) > 50
    assert wanted <= set(inside)
    # Installed, programs read the records of the package and write where they are called.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "from recsys.benchmarks import accuracy, folders\n"
        "print(folders.CHECKOUT, folders.RESULTS, accuracy.README, accuracy.TABLES)\n"
        "print([line for line in accuracy.status_lines() if 'ml-100k/ease' in line])"
    )
    (tmp_path / "empty").mkdir()
    places, line = _python(code, cwd=tmp_path / "empty", PYTHONPATH="").splitlines()
    assert places == "None results None results/accuracy/README.md"
    assert "(record of the package)" in line
    assert not list((tmp_path / "empty").iterdir())
