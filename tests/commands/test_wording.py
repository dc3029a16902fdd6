import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from recsys.commands.app import app
from recsys.commands.wording import commands_of, for_command


@pytest.mark.parametrize(
    ("command", "said", "shown"),
    [
        ("recommend", "unknown item 'x'; on_unknown='warn' leaves it out", "--on-unknown warn leaves"),
        ("train", "replace it with overwrite=True", "replace it with --overwrite"),
        ("clock", "pass time_unit='ms'", "pass --time-unit ms (of `recsys prepare`)"),
        ("evaluate", "no such run; train it with out=", "train it with --out (of `recsys train`)"),
        ("prepare", "pass time_unit='ms'", "pass --time-unit ms"),
        ("prepare", "pass separator=' | '", "pass --separator ' | '"),
        ("prepare", "pass header=False", "pass --no-header"),
        ("recommend", "pass exclude_seen=False", "pass --include-seen"),
        ("recommend", "at='9999' is no moment", "--at 9999 is no moment"),
        ("recommend", "pass times= with the histories", "pass --times with the histories"),
        ("evaluate", "ks=[0, 5] must be whole numbers", "--k '0, 5' must"),
        ("recommend", "pass times=, or time_zone=", "pass --times, or --time-zone"),
        # What the user wrote, and what is no option of ours, stays.
        ("index build", "--set 'k=3': write it otherwise", "--set 'k=3': write it otherwise"),
        ("train", "/logs/k=3/at=5.csv: no such file", "/logs/k=3/at=5.csv: no such file"),
        ("train", "nonsense=3 and encoder.k = 4", "nonsense=3 and encoder.k = 4"),
    ],
)
def test_a_remedy_is_told_in_the_words_of_the_command(command: str, said: str, shown: str) -> None:
    root = typer.main.get_command(app)
    assert shown in for_command(said, commands_of(root)[command], root)


ROOT = Path(__file__).parents[2]
SPEAK_OPTIONS = {
    "recsys/config.py",  # reads the text of --set
    "recsys/training/loggers.py",  # reads the text of --log-to
    "datasets/preparing/options.py",  # help texts of options
    "datasets/splitting/options.py",
    "datasets/reading/options.py",
    "datasets/sources/recbole_wheel.py",  # pip's
    "kernels/shared/launching/machine_code.py",  # cuobjdump's
    "recsys/retrieval/backends.py",  # a line of `recsys index`
    "recsys/serving/engine/runs.py",  # told to who started `recsys serve`
    "recsys/serving/http/routes/models.py",
    "recsys/serving/http/storing.py",
    "recsys/serving/oip/routes.py",
    "recsys/serving/http/keys.py",
}


def _texts(path: Path) -> Iterator[str]:
    """Literals of a module that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def test_the_library_names_what_to_pass_as_python_writes_it() -> None:
    """Options in its messages would be no remedy in Python; a command makes them from the names itself."""
    folders = [path for path in (ROOT / "recsys").iterdir() if path.is_dir() and not path.is_symlink()]
    rooms = [ROOT / "kernels", ROOT / "datasets", *(f for f in folders if f.name != "commands")]
    modules = [*(ROOT / "recsys").glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    assert len(modules) > 250
    for path in modules:
        if str(path.relative_to(ROOT)) not in SPEAK_OPTIONS:
            spoken = [text for text in _texts(path) if re.search(r"(?<![\w-])--[a-z]", text)]
            assert not spoken, f"{path}: {spoken}"
