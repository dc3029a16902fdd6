"""Standard streams that a character, a closed pipe or a full disk does not bring down.

- A character that the stream's encoding lacks is written as an escape.
- Nobody reads standard output any more (``| head -1``): `ReaderLeftError`; the command line leaves with 0.
- Standard output cannot be written: one line, as for any file.
- Standard error cannot be written: the messages are lost, the work goes on.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from recsys.errors import RunError


class ReaderLeftError(Exception):
    """Who read our standard output has left; there is nothing more to say."""


class _Stream:
    """A text stream with another answer to errors; else the stream itself."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; see the class for what happens to an error."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            self._failed(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each text in turn."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what is buffered; see the class for what happens to an error."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        raise NotImplementedError


class _Output(_Stream):
    """Standard output: an error ends the command."""

    def _failed(self, error: OSError) -> None:
        raise output_error(error) from None


class _Messages(_Stream):
    """Standard error: an error is swallowed, as there is no place left to say it."""

    def _failed(self, error: OSError) -> None:
        _to_nowhere(self._stream)


def output_error(error: OSError) -> Exception:
    """What an error of standard output means: `ReaderLeftError`, or a `RunError` of one line."""
    if isinstance(error, BrokenPipeError):
        return ReaderLeftError()
    if error.errno == errno.ENOSPC:
        return RunError("standard output: the disk is full; free some space and run again")
    return RunError(
        f"standard output: cannot be written ({error.strerror or error}); send it to another file"
    )


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let `sys.stdout` and `sys.stderr` be such streams inside the block; on leaving, all is written.

    Raises:
        ReaderLeftError, RunError: standard output was closed or cannot be written.
    """
    before = sys.stdout, sys.stderr
    errors = [getattr(stream, "errors", None) for stream in before]
    for stream in before:
        _reconfigure(stream, "backslashreplace")
    # A process may be started without either.
    sys.stdout = None if before[0] is None else _Output(before[0])
    sys.stderr = None if before[1] is None else _Messages(before[1])
    try:
        yield
    finally:
        output, messages = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = before
        try:
            if messages is not None:
                messages.flush()
            if output is not None:
                output.flush()
        except (ReaderLeftError, RunError):
            # What is still buffered would fail again when the interpreter closes the stream.
            _to_nowhere(before[0])
            raise
        finally:
            for stream, name in zip(before, errors, strict=True):
                _reconfigure(stream, name)


def _reconfigure(stream: Any, errors: str | None) -> None:
    # Streams of tests and notebooks are others than files and have no encoding to fail on.
    if errors is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)


def _to_nowhere(stream: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
