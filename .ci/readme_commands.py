"""Run every command and Python block of pages as a reader would, one after the other, in one empty folder.

    python .ci/readme_commands.py README.md docs/tutorials/*.md

The folder holds a small ``log.csv``, which the README takes for its reader's own. ``make`` and ``pip`` lines
are left out: the caller has just made the environment. Training stops after three epochs: what is shown is
that the commands work and fit together, not the figures.

``recsys serve ... &`` starts a service, on a free port that takes the place of localhost:8000 in what
follows. The next command waits until it is ready; it ends with its page, or before the next service begins.
An answer of 400 or above fails curl.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
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
    ran, page = 0, ""
    with tempfile.TemporaryDirectory() as folder, _Service(folder, environment) as service:
        _write_log(Path(folder) / "log.csv")
        (Path(folder) / ".curlrc").write_text("fail-with-body\n", encoding="utf-8")
        environment["CURL_HOME"] = folder
        for name, kind, text in blocks:
            if name != page:
                service.end()
                page = name
            for command in _commands(kind, text):
                print(f"{name}: {command if kind == 'sh' else 'python block'}", flush=True)
                if kind == "sh" and command.startswith("recsys serve ") and command.endswith("&"):
                    worked = service.begin(command)
                else:
                    told = service.told(command)
                    argv = ["bash", "-euc", told] if kind == "sh" else [sys.executable, "-c", told]
                    worked = subprocess.run(argv, cwd=folder, env=environment, check=False).returncode == 0
                if not worked:
                    print(f"{name}: failed: {command}", file=sys.stderr)
                    return 1
                ran += 1
    print(f"{len(pages)} pages: {ran} commands ran")
    return 0 if ran else 1


class _Service:
    """The service of a page, at most one at a time."""

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 8000

    def __enter__(self) -> "_Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def told(self, command: str) -> str:
        """A command, asking the service where it is."""
        return command.replace("localhost:8000", f"localhost:{self._port}")

    def begin(self, command: str) -> bool:
        """Start a service in place of the one before; whether it took requests within two minutes."""
        self.end()
        with socket.socket() as own:
            own.bind(("127.0.0.1", 0))
            self._port = own.getsockname()[1]
        own_ports = f"exec {command.removesuffix('&')} --port {self._port} --metrics-port 0"
        self._process = subprocess.Popen(
            ["bash", "-euc", own_ports], cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL
        )
        ends = time.monotonic() + 120
        while time.monotonic() < ends and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/readyz", timeout=5):
                    return True
            except OSError:
                time.sleep(0.1)
        return False

    def end(self) -> None:
        """End the service, if there is one, as Ctrl+C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=60)
            self._process = None


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
        f"{c} --set training.epochs=3" if "recsys train " in c and "epochs=" not in c else c
        for c in commands
        if c and not c.startswith(skipped)
    ]


if __name__ == "__main__":
    sys.exit(main())
