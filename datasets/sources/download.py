"""Fetch one file over HTTP: resumed where it stopped, checked against a published sha256."""

import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from recsys.datasets.folders import write_error
from recsys.datasets.prepared.files import sha256_of
from recsys.errors import DataError

_TIMEOUT_S = 10.0
_CHUNK_BYTES = 1 << 16


def download(url: str, target: Path, sha256: str, *, timeout_s: float = _TIMEOUT_S) -> None:
    """Fetch a file unless it is there already.

    Bytes go to ``<target>.part``; a later call asks the server for the rest only. The file takes its name
    when its hash is right, so ``target`` is whole or absent. A bar is drawn on a terminal.

    Args:
        url: http or https.
        target: where the file shall lie.
        sha256: hex hash that it must have.
        timeout_s: for the connection and for each wait for bytes.

    Raises:
        DataError: the server cannot be reached, does not have the file, breaks off, or sends other bytes;
            the disk is full.
    """
    if target.is_file() and sha256_of(target) == sha256:
        return
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.is_file() and part.stat().st_size > 0
        _fetch(url, part, timeout_s)
        if sha256_of(part) != sha256 and resumed:
            # The start may stem from another version of the file: once more from the first byte.
            part.unlink()
            _fetch(url, part, timeout_s)
        if sha256_of(part) != sha256:
            part.unlink()
            raise DataError(
                f"{url}: the file that came has another sha256 than the published one; try again later"
            )
        part.replace(target)
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"{url}: cannot be reached ({reason})") from None
    except OSError as error:
        raise write_error(target, error) from None


def _fetch(url: str, part: Path, timeout_s: float) -> None:
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send: the part is whole
            error.close()
            return
        raise
    with answer:
        partial = answer.status == 206
        length = int(answer.headers.get("Content-Length") or 0)
        done = start if partial else 0
        with part.open("ab" if partial else "wb") as file, _Bar(url, done, done + length) as advance:
            received = 0
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                received += len(chunk)
                advance(len(chunk))
        # http.client ends a broken-off body like a whole one.
        if received < length:
            raise ConnectionError(
                f"the connection broke off after {done + received} of {done + length} bytes"
            )


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, url: str, done: int, total: int) -> None:
        self._name = url.rsplit("/", 1)[-1]
        self._done, self._total = done, total
        self._close: Callable[[], None] = lambda: None

    def __enter__(self) -> Callable[[int], None]:
        if not sys.stderr.isatty():
            return lambda count: None
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        task = progress.add_task(self._name, total=self._total or None, completed=self._done)
        progress.start()
        self._close = progress.stop
        return lambda count: progress.advance(task, count)

    def __exit__(self, *_: object) -> None:
        self._close()
