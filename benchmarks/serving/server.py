"""A `recsys serve` of one's own: started, waited for, looked at, ended."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from recsys.benchmarks.processes import below, memory_of, own_memory_of
from recsys.errors import RecsysError

__all__ = ["Server", "free_port"]


class Server:
    """A service of a run in processes of its own, on free ports of the loopback.

    Use as a context; what it prints goes to a file, whose end an error shows.

    Args:
        arguments: of `recsys serve`, without the ports.
        ready: seconds until it has to take requests.
        environment: beside this process's.

    Attributes:
        port: where it answers.
        metrics_port: where its metrics are.
        pid: of its first process.
        cold: seconds from the command to readiness.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        ready: float = 120.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        ports = ["--port", str(self.port), "--metrics-port", str(self.metrics_port)]
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "recsys", "serve", *arguments, *ports],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        self.pid = self._process.pid
        try:
            while not self.ready():
                if self._process.poll() is not None:
                    raise RecsysError(f"recsys serve ended with {self._process.returncode}: {self.printed()}")
                if time.perf_counter() - began > ready:
                    raise RecsysError(f"recsys serve was not ready in {ready:.0f} s: {self.printed()}")
                time.sleep(0.05)
        except BaseException:
            self.end()
            raise
        self.cold = time.perf_counter() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ready(self) -> bool:
        """Whether it takes requests."""
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def ask(
        self, method: str, path: str, body: Any = None, *, port: int | None = None, timeout: float = 10.0
    ) -> tuple[int, bytes]:
        """Status and body of one request, on a connection of its own.

        Raises:
            OSError: nobody answers.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(
                method, path, sent, {} if sent is None else {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"no answer that is one: {error!r}") from None
        finally:
            connection.close()

    def metrics(self) -> str:
        """What Prometheus would read."""
        return self.ask("GET", "/metrics", port=self.metrics_port)[1].decode()

    def processes(self) -> list[int]:
        """Its first process and all below it."""
        return below(self.pid)

    def memory(self) -> int:
        """Bytes of all its processes, what several share counted once (proportional set size)."""
        return sum(memory_of(pid) for pid in self.processes())

    def own_memory(self) -> int:
        """Bytes that its processes have written to, without the vectors and answers that are kept."""
        return sum(own_memory_of(pid) for pid in self.processes()) - self.kept()

    def kept(self) -> int:
        """Bytes of the vectors and answers that it keeps, which grow until `cache_bytes` of its settings."""
        rows = re.findall(r"^recsys_(?:state|answer)_cache_bytes\S* (\S+)$", self.metrics(), re.MULTILINE)
        return int(sum(map(float, rows)))

    def descriptors(self) -> int:
        """Open files and sockets of all its processes."""
        total = 0
        for pid in self.processes():
            try:
                total += len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
        return total

    def processor_seconds(self) -> float:
        """Processor time that all its processes have used."""
        total = 0
        for pid in self.processes():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def printed(self, most: int = 2000) -> str:
        """The end of what it printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-most:]

    def end(self) -> int:
        """Have it end as a supervisor would, by SIGTERM; after 40 seconds it is killed. Its exit code."""
        if self._process.poll() is None:
            own = self.processes()
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                for pid in own:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
        code = self._process.wait()
        self._log.close()
        return code


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as own:
        own.bind(("127.0.0.1", 0))
        return int(own.getsockname()[1])
