"""Imports point one way: the rooms of docs/rooms.toml, held by reading every import statement.

`python -m tests.test_layers` writes the table of docs/architecture.md from the same file.
"""

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
MAPPED = ("kernels", "datasets", "benchmarks")
LOOSE = {
    *("__init__", "__main__", "errors", "config", "files", "forks"),
    *("jagged", "pickling", "recommender"),
}
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->\n"
ROOMS: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "docs" / "rooms.toml").read_text(encoding="utf-8"))


def _modules() -> list[tuple[str, Path]]:
    found = []
    for folder in MAPPED:
        found += [(folder, path) for path in sorted((ROOT / folder).rglob("*.py"))]
    for path in sorted((ROOT / "recsys").rglob("*.py")):
        inside = path.relative_to(ROOT / "recsys").parts
        if inside[0] not in MAPPED and inside != ("__init__.py",):
            found.append((inside[0].removesuffix(".py"), path))
    return found


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # The peers' sides run in environments of their own, where no recsys is.
            assert node.level == 0 or path.parent.name == "peers", f"{path}: a relative import"
            names.add(node.module or "")
            if node.module == "recsys":
                names |= {f"recsys.{alias.name}" for alias in node.names}
    return names


def _table() -> str:
    lines = ["| room | duty | may import |\n|---|---|---|\n"]
    for name, room in ROOMS.items():
        shown = [*room["imports"], *room.get("libraries", [])]
        lines.append(f"| `{name}` | {room['duty']} | {', '.join(shown) or 'nothing'} |\n")
    return "".join(lines)


def _with_table(page: str) -> str:
    before, rest = page.split(BEGIN)
    return before + BEGIN + _table() + END + rest.split(END)[1]


def test_the_walk_sees_every_room_and_few_modules_are_loose() -> None:
    assert {room for room, _ in _modules()} == set(ROOMS)
    assert {path.stem for path in (ROOT / "recsys").glob("*.py")} == LOOSE


def test_ray_is_named_in_one_room() -> None:
    for room, path in _modules():
        assert room == "engines" or "ray" not in {name.split(".")[0] for name in _imported(path)}, path


def test_rooms_are_listed_from_the_ground_up() -> None:
    below: set[str] = set()
    for name, room in ROOMS.items():
        assert set(room["imports"]) <= below, f"{name} imports a room that is listed after it: a circle"
        below.add(name)


def test_no_import_is_allowed_that_nothing_makes() -> None:
    made: dict[str, set[str]] = {name: set() for name in ROOMS}
    for owner, path in _modules():
        made[owner] |= {name.split(".")[1] for name in _imported(path) if name.startswith("recsys.")}
    for name, allowed in ROOMS.items():
        unused = set(allowed["imports"]) - made[name]
        assert not unused, f"{name}: {unused}"


def test_the_architecture_page_shows_these_rooms() -> None:
    page = ARCHITECTURE.read_text(encoding="utf-8")
    assert page == _with_table(page), "write it anew: python -m tests.test_layers"


def test_every_room_says_in_its_first_lines_what_lives_there() -> None:
    for folder in [*(ROOT / "recsys").iterdir(), *(ROOT / "datasets").iterdir()]:
        if folder.is_dir() and not folder.is_symlink() and folder.name != "__pycache__":
            text = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text)), f"{folder}: no docstring"


@pytest.mark.parametrize(
    ("room", "path"), _modules(), ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else x
)
def test_imports_point_downwards(room: str, path: Path) -> None:
    allowed = {room, "__version__", *ROOMS[room]["imports"]}
    if room in ("benchmarks", "commands"):
        allowed |= {"Recommender", "SequenceStore", "load", "prepare"}  # names of the package itself
    for name in _imported(path):
        parts = name.split(".")
        if parts[0] == "recsys" and len(parts) > 1:
            assert parts[1] in allowed, f"{path} imports {name}"
        assert parts[0] not in MAPPED, f"{path} imports {name} of someone else"


@pytest.mark.parametrize(
    ("room", "path"),
    [(room, path) for room, path in _modules() if "libraries" in ROOMS[room]],
    ids=lambda x: str(x.relative_to(ROOT)) if isinstance(x, Path) else x,
)
def test_ground_floor_rooms_use_only_their_libraries(room: str, path: Path) -> None:
    outside = {name.split(".")[0] for name in _imported(path)} - {"recsys"} - set(sys.stdlib_module_names)
    assert outside <= set(ROOMS[room]["libraries"]), f"{path} imports {outside}"


if __name__ == "__main__":
    ARCHITECTURE.write_text(_with_table(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")


def test_no_module_hides_a_name_that_its_package_gives() -> None:
    # The first import of pkg.name puts the module in the place of a function of that name. Where the package
    # imports it itself, the function comes after and stays.
    seen = 0
    for path in [path for _, path in _modules() if path.name == "__init__.py"]:
        early = {name.rpartition(".")[2] for name in _imported(path)}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                seen += 1
                there = {other.stem for other in path.parent.iterdir() if other.suffix in (".py", "")}
                hidden = set(ast.literal_eval(node.value)) & there
                assert not hidden - early, f"{path}: modules are named like what the package gives"
    assert seen > 20
