"""The one dictionary of docs/glossary.md: what it retires names nothing, and what it points to is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
FOLDERS = ("kernels", "datasets", "recsys", "benchmarks")


def _rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


IN_USE, _, RETIRED_PART = PAGE.partition("## Retired words")
RETIRED = {
    word: set(re.findall(r"`([^`]+)`", stays))
    for words, _, stays in _rows(RETIRED_PART)
    if words != "retired"
    for word in words.split(", ")
}


def _words(name: str) -> list[str]:
    """An identifier's words, in lower case: snake_case and CamelCase alike."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _holds(name: str, retired: str) -> bool:
    words, parts = _words(name), retired.split("_")
    return any(words[i : i + len(parts)] == parts for i in range(len(words) - len(parts) + 1))


def _identifiers(source: str) -> Iterator[str]:
    """Names of classes, functions and arguments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def _names() -> set[tuple[str, str]]:
    """(file, name) of every module and identifier of ours."""
    found = set()
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            file = path.relative_to(ROOT)
            if any((ROOT / parent).is_symlink() for parent in file.parents):
                continue  # `recsys.kernels` and the like are links
            names = {*file.with_suffix("").parts, *_identifiers(path.read_text(encoding="utf-8"))}
            found |= {(file.as_posix(), name) for name in names}
    return found


NAMES = _names()


def test_identifiers_are_read_by_their_words() -> None:
    source = (
        "class ScreenedRanks:\n    def narrow_rows(self, *, tickets): ...\nasync def markov_log(slope=1): ..."
    )
    names = list(_identifiers(source))
    assert set(names) == {"ScreenedRanks", "narrow_rows", "self", "tickets", "markov_log", "slope"}
    assert _holds("ScreenedRanks", "screened")
    assert _holds("narrow_rows_worker", "narrow_rows")
    assert not _holds("markov_log", "mark")
    assert not _holds("narrow_products", "narrow_rows")
    assert not _holds("leave_one_out", "left_out")
    assert {
        ("kernels/ranking/cpu_pack.py", "pack_worker"),
        ("kernels/ranking/cpu_pack.py", "ranking"),
    } <= NAMES


@pytest.mark.parametrize("word", RETIRED)
def test_a_retired_word_names_nothing(word: str) -> None:
    found = {f"{file}:{name}" for file, name in NAMES if _holds(name, word)}
    assert found <= RETIRED[word]


def test_what_stays_is_there() -> None:
    stays = {entry for entries in RETIRED.values() for entry in entries}
    assert stays <= {f"{file}:{name}" for file, name in NAMES}


@pytest.mark.parametrize("row", [row for row in _rows(IN_USE) if row[0] != "here"], ids=lambda row: row[0])
def test_a_word_in_use_points_to_what_is_there(row: list[str]) -> None:
    term, field, meaning, where = row
    assert all((term, field, meaning))
    assert (ROOT / where.strip("`")).exists()
