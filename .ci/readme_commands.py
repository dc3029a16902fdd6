"""Run every command and Python block of pages as a reader would, one after the other, in one empty folder.

    python .ci/readme_commands.py README.md docs/tutorials/*.md

The folder holds a small ``log.csv``, which the README takes for its reader's own. ``make`` and ``pip`` lines
are left out: the caller has just made the environment. Training stops after three epochs: what is shown is
that the commands work and fit together, not the figures.
"""

import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Run the blocks in order; the first failure ends the run."""
    pages = [Path(name).resolve() for name in sys.argv[1:]]
    blocks = [
        (page.name, kind, text)
        for page in pages
        for kind, text in re.findall(r"^```(sh|python)\n(.*?)^```", page.read_text(), flags=re.S | re.M)
    ]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        _write_log(Path(folder) / "log.csv")
        for name, kind, text in blocks:
            for command in _commands(kind, text):
                print(f"{name}: {command if kind == 'sh' else 'python block'}", flush=True)
                argv = ["bash", "-euc", command] if kind == "sh" else [sys.executable, "-c", command]
                if subprocess.run(argv, cwd=folder, env=environment, check=False).returncode:
                    print(f"{name}: failed: {command}", file=sys.stderr)
                    return 1
                ran += 1
    print(f"{len(pages)} pages: {ran} commands ran")
    return 0 if ran else 1


def _write_log(path: Path) -> None:
    """A log of random walks, so that there is something to learn."""
    draw = random.Random(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(1, 81):
        item = draw.randrange(30)
        for event in range(draw.randint(5, 30)):
            lines.append(f"{user},{item},{1_000_000_000 + 3600 * event}")
            item = (item + draw.randint(1, 3)) % 30
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _commands(kind: str, text: str) -> list[str]:
    if kind == "python":
        return [text]
    lines = text.replace("\\\n", " ").splitlines()
    commands = [line.split("  #")[0].strip() for line in lines]
    skipped = ("make ", "pip ", "git ", "#", "cd ")
    return [
        f"{c} --set training.epochs=3" if c.startswith("recsys train ") and "epochs=" not in c else c
        for c in commands
        if c and not c.startswith(skipped)
    ]


if __name__ == "__main__":
    sys.exit(main())
