"""A Ray cluster for the time of one call: the user's own by address, else one of this machine's processors.

What Ray would do by itself and is turned off for a cluster that is started here: usage reports, a dashboard,
listening beyond the loopback address, a token in the home folder (one of the call's own takes its place), and
killing workers when other programs fill the machine. Nothing here ends a Ray that it did not start. What Ray
says of lost workers and machines goes to standard error.
"""

import importlib.util
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from recsys.errors import MissingDependencyError, RunError

_STORE_BYTES = 128 * 2**20
# Ray puts sockets under its folder, and the names of sockets are short.
_LONGEST_TEMP = 30
_FOLDER = "recsys-ray-"


def need_ray() -> None:
    """Refuse where Ray is not installed, without loading it.

    Raises:
        MissingDependencyError: it is not; the message names the extra.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingDependencyError("Ray is not installed: pip install 'recsys-engine[ray]'")


@contextmanager
def ray_cluster(
    address: str | None, *, cpus: int | None = None, store_bytes: int = _STORE_BYTES
) -> Iterator[Any]:
    """Be a driver of a Ray cluster; yields the module `ray`.

    Args:
        address: ``"auto"`` or ``"HOST:PORT"`` of a running cluster; None starts one on this machine, which
            ends with the block, or with this process however it ends.
        cpus: processors of the one that is started; None for those this process may use.
        store_bytes: shared memory of the one that is started.

    Raises:
        MissingDependencyError: Ray is not installed.
        RunError: no cluster at that address, or none can be started.
    """
    need_ray()
    with ExitStack() as ending:
        settings: dict[str, Any] = {}
        if address is None:
            remove_left_folders()
            temporary = tempfile.TemporaryDirectory(
                prefix=f"{_FOLDER}{os.getpid()}-", dir=_short_folder(), ignore_cleanup_errors=True
            )
            folder = ending.enter_context(temporary)
            ending.enter_context(_environment_of_own())
            settings = {
                "num_cpus": cpus or len(os.sched_getaffinity(0)),
                "object_store_memory": store_bytes,
                "include_dashboard": False,
                "_temp_dir": folder,
            }
        import ray

        # Ray tells of lost machines there, between the lines of a result.
        ending.enter_context(redirect_stdout(sys.stderr))
        if ray.is_initialized():
            raise RunError("this process uses Ray already: call ray.shutdown() first")
        ours = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **settings)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            where = "on this machine" if address is None else f"at address={address!r}"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(f"no Ray cluster {where} ({reason}); start one, or leave address= out") from None
        ending.callback(ray.shutdown)
        # Ray took SIGTERM, to end this process after its own manner; the caller's ends the cluster as well.
        if ours is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)
        yield ray


def remove_left_folders() -> None:
    """Remove the folders of clusters whose process was killed."""
    for left in Path(_short_folder()).glob(f"{_FOLDER}*"):
        pid = left.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)  # another user's stays


def _short_folder() -> str:
    """Where temporary files go, if sockets can lie there."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _LONGEST_TEMP else "/tmp"


@contextmanager
def _environment_of_own() -> Iterator[None]:
    """Settings of a cluster of one call, which Ray's own processes read, where the user has none."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray's name for "on the loopback address alone", as it does on other systems.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_memory_monitor_refresh_ms": "0",
    }
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def _token() -> str:
    """One for all clusters of this process: Ray reads it once."""
    return secrets.token_hex(32)
