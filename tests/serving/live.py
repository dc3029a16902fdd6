"""A service on a socket, in a process of its own."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60


@contextmanager
def live(target: str, **environment: str) -> Iterator[str]:
    """Serve what a function makes until the block ends.

    Args:
        target: "module:function" of a function without arguments that makes a `Service`.
        environment: variables of the process beside this one's.

    Yields:
        Its address, such as "http://127.0.0.1:43211".
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.serving.live", target, str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def _wait(process: "subprocess.Popen[str]", port: int) -> None:
    """Until the port is listened at.

    Raises:
        RuntimeError: the process has ended; what it said.
    """
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[1])
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens at port {port} after {SECONDS} s")


def _serve(target: str, port: int) -> None:
    """Serve until killed."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    from recsys.serving.http.app import create_app

    module, _, name = target.partition(":")
    service: Any = getattr(import_module(module), name)()

    async def run() -> None:
        server = Server(create_app(service), port=port, interface=Interfaces.ASGI, log_enabled=False)
        await server.serve()

    asyncio.run(run())


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
