"""The parent of a service: binds the address, starts the workers, keeps them alive, shows metrics, ends.

Each worker is a process of its own, made by spawn, so that nothing of the parent's threads is in it; granian
hands it the connections. The parent loads no model.
"""

import errno
import ipaddress
import multiprocessing
import os
import resource
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.mp import MPServer
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from recsys.errors import ConfigError, RecsysError
from recsys.serving.http.keys import Keys
from recsys.serving.remembering import resumed, said_with_remedy
from recsys.serving.settings import ServeSettings
from recsys.serving.state import FOLDER, SALT, SETTINGS, State

HEADER_MS = 5000
"""Milliseconds that a connection may take to send the head of a request, or be idle."""
_HEAD_BYTES = 64 * 1024
_CONNECTIONS = 16_384
"""Connections of a worker, idle ones too: fewer, and those who send nothing would keep the others out."""
_OTHER_FILES = 256
_BACKLOG = 1024
_POLL = 0.1
_DOOMED = 3
"""Times in a row that workers may end before any is ready."""


class ServingError(RecsysError):
    """The service cannot begin, or cannot go on."""


def serve(settings: ServeSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    SIGTERM: /readyz turns to 503, after `settings.drain` seconds nothing new is taken, what is in flight is
    answered, and all is over within `settings.grace`. SIGINT, or SIGTERM while models are loaded: the same
    without waiting. SIGHUP: the file of keys is read again.

    Args:
        settings: of the command line; port 0 takes a free one.
        say: told of each step in one line.

    Raises:
        ConfigError: the address cannot be bound, or others would reach a service without keys.
        ServingError: a worker cannot load the models, or workers do not stay alive.
    """
    if settings.keys is not None:
        Keys.read(settings.keys)
    ip = _address(settings.host, "host")
    if settings.keys is None and not settings.insecure and not ipaddress.ip_address(ip).is_loopback:
        raise ConfigError(
            f"host={settings.host}: others reach this address, and nobody needs a key; "
            "pass keys= (make one: recsys keys new NAME) or insecure=True"
        )
    _check_ports(settings, ip)
    with (
        tempfile.TemporaryDirectory(prefix="recsys-serve-", ignore_cleanup_errors=True) as folder,
        _bound(ip, settings.port, "port") as port,
    ):
        settings, state = resumed(replace(settings, port=port), say), State(folder)
        with _environment(settings, state), _metrics(settings, state, say):
            server = _Parent(settings, ip, state, say)
            server.serve()
            if server.failure is not None:
                raise ServingError(said_with_remedy(server.failure, settings))


class _Parent(MPServer):
    """granian's parent with our own ways of beginning, of going on after a worker's end, and of ending."""

    def __init__(self, settings: ServeSettings, ip: str, state: State, say: Callable[[str], None]) -> None:
        super().__init__(
            "recsys.serving.worker:create",
            address=ip,
            port=settings.port,
            interface=Interfaces.ASGI,
            factory=True,
            workers=settings.workers,
            websockets=False,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEADER_MS, max_buffer_size=_HEAD_BYTES),
            backlog=_BACKLOG,
            backpressure=_connections(),
            log_enabled=False,
            workers_kill_timeout=max(1, int(settings.grace - settings.drain)),
        )
        self.settings, self.state, self.say = settings, state, say
        self.failure: str | None = None
        self._asked = 0
        self._announced = False
        self._ends_at: float | None = None
        self._reread = False
        self._unready_ends = 0

    def signal_handler_interrupt(self, *args: Any, **_: Any) -> None:
        """Begin to end; a second signal does not wait any longer."""
        # A handler runs between two steps of the main thread: it takes no lock, the loop looks for itself.
        self._asked += 1
        at_once = self._asked > 1 or args[0] == signal.SIGINT or not self._announced
        self._ends_at = time.monotonic() + (0.0 if at_once else self.settings.drain)

    def signal_handler_reload(self, *_: Any, **__: Any) -> None:
        """Have the keys read again; without keys this is a terminal that was closed."""
        if self.settings.keys is None:
            self.signal_handler_interrupt(signal.SIGINT)
        self._reread = True

    def _spawn_workers(self, *args: Any, **named: Any) -> None:
        with _ignored(signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            super()._spawn_workers(*args, **named)  # type: ignore[no-untyped-call]

    def _respawn_workers(self, *args: Any, **named: Any) -> None:
        with _ignored(signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            super()._respawn_workers(*args, **named)

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        draining = False
        steps: set[str] = set()
        while self._ends_at is None or time.monotonic() < self._ends_at:
            time.sleep(_POLL)
            if self._ends_at is not None and not draining:
                draining = True
                self._tell(signal.SIGUSR1)
            if self._reread:
                self._reread = False
                self._tell(signal.SIGUSR2)
            if self.interrupt_children and self._ends_at is None:
                self._replace_ended(spawn_target, target_loader)
                if self.failure is not None:
                    break
            if not self._announced:
                step = self.state.current_step()
                if step is not None and step not in steps:
                    steps.add(step)
                    self.say(step[:1].upper() + step[1:])
                self._announced = self._announce()

    def _announce(self) -> bool:
        if len(set(self.state.ready()) & {worker.inner.pid for worker in self.wrks}) < len(self.wrks):
            return False
        self.state.say_started()
        settings = self.settings
        runs = ", ".join(path for _, path, *_ in settings.resumed or settings.models)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.say(f"Serving {runs} on http://{host}:{settings.port} · docs /docs · Ctrl+C ends")
        return True

    def _replace_ended(self, spawn_target: Any, target_loader: Any) -> None:
        ended = sorted(set(self.interrupt_children))
        self.interrupt_children.clear()
        self.main_loop_interrupt.clear()
        was_ready = set(self.state.ready())
        for place in ended:
            process = self.wrks[place].inner
            self.failure = self.failure or self.state.failure()
            self._unready_ends = 0 if process.pid in was_ready else self._unready_ends + 1
            self.state.forget(process.pid)
            mark_process_dead(process.pid, str(self.state.metrics))
            if self.failure is None:
                self.say(f"Warning: worker {place + 1} ended ({_how(process.exitcode)}); another one begins")
        if self.failure is None and self._unready_ends >= _DOOMED:
            self.failure = f"{self._unready_ends} workers ended before they were ready; the log says why"
        if self.failure is None:
            self._respawn_workers(ended, spawn_target, target_loader)

    def _tell(self, number: signal.Signals) -> None:
        for worker in self.wrks:
            with suppress(ProcessLookupError):
                os.kill(worker.inner.pid, number)

    def shutdown(self, exit_code: int = 0) -> None:
        """End the workers; the exit code is for the command line to say."""
        self.interrupt_children.clear()
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def _connections() -> int:
    """Connections that a worker may hold: as many as the descriptors it inherits allow, which are raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, allowed - _OTHER_FILES)


@contextmanager
def _environment(settings: ServeSettings, state: State) -> Iterator[None]:
    """What workers find in their environment, and how they are made."""
    state.metrics.mkdir()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    given = {
        SETTINGS: settings.to_json(),
        FOLDER: str(state.folder),
        SALT: secrets.token_hex(16),
        "PROMETHEUS_MULTIPROC_DIR": str(state.metrics),
    }
    before = {name: os.environ.get(name) for name in (*threads, *given)}
    method = multiprocessing.get_start_method(allow_none=True)
    os.environ.update({name: os.environ.get(name) or text for name, text in threads.items()} | given)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(method, force=True)
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text


@contextmanager
def _metrics(settings: ServeSettings, state: State, say: Callable[[str], None]) -> Iterator[None]:
    """Show the sum of all workers' metrics at /metrics of an address of its own."""
    if settings.metrics_port == 0:
        yield
        return
    ip = _address(settings.metrics_host, "metrics_host")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(state.metrics))
    with _bound(ip, settings.metrics_port, "metrics_port"):
        pass
    server, thread = start_http_server(settings.metrics_port, ip, registry)
    say(f"Metrics on http://{settings.metrics_host}:{settings.metrics_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _check_ports(settings: ServeSettings, ip: str) -> None:
    """Refuse one port for answers and metrics: both could be bound at first."""
    if settings.metrics_port == 0 or settings.metrics_port != settings.port:
        return
    metrics_ip = _address(settings.metrics_host, "metrics_host")
    if metrics_ip == ip or any(ipaddress.ip_address(own).is_unspecified for own in (ip, metrics_ip)):
        raise ConfigError(f"metrics_port={settings.metrics_port}: is also the port of answers; pass another")


def _address(host: str, argument: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"{argument}={host}: no such address of this machine; pass an IP address") from None
    return str(found[0][4][0])


@contextmanager
def _bound(ip: str, port: int, argument: str) -> Iterator[int]:
    """Hold a port that nobody else has, so that a second service is refused it; yield its number."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family) as probe, socket.socket(family) as held:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            # Workers share the port; another service must not share it with them.
            probe.bind((ip, port))
            probe.close()
            held.bind((ip, port))
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
                host = argument.replace("port", "host")
                raise ConfigError(f"{host}={ip}: is no address of this machine; pass one that is") from None
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"{argument}={port}: cannot be bound on {ip} ({reason}); pass another"
            ) from None
        yield int(held.getsockname()[1])


@contextmanager
def _ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Let children made inside the block ignore signals until they handle them themselves."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
