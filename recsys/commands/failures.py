"""How a command ends: every exception as one line on standard error, and its exit code.

0 done, or nobody reads the output any more; 1 a fault of the program; 2 something the user can mend;
130 interrupted; 143 terminated. With `RECSYS_DEBUG=1` the traceback comes before the line.
"""

import _thread
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import typer

from recsys.commands.usage import UsageError, explain
from recsys.commands.wording import for_command
from recsys.console.streams import ReaderLeftError, output_error
from recsys.console.text import one_line
from recsys.errors import RecsysError

DEBUG = "RECSYS_DEBUG"

afterwards: ContextVar[str | None] = ContextVar("afterwards", default=None)
"""What becomes of the command at hand that was interrupted, where it knows better than `_GOES_ON`."""

_GOES_ON = {
    "score": "the same command goes on where it stopped",
    "tune": "the same command goes on where it stopped",
    "accuracy": "the same command goes on where it stopped",
    "search": "the same command goes on where it stopped",
    "prepare": "nothing was written",
}
"""What becomes of a command that was interrupted, by its name; others left nothing to say."""


class Terminated(KeyboardInterrupt):
    """A signal asks this process to end: what an interrupt cleans up is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Terminated` inside the block, where nobody else handles them.

    A signal may come while Python runs a finalizer or the callback of a weak reference, out of which nothing
    can be raised: Python would print a traceback and go on. That signal, SIGINT too, is sent once more.
    """
    giving_up = False

    def end(number: int, _: Any) -> None:
        if giving_up:
            _send_soon(number)
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A second one ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    def lost(unraisable: "sys.UnraisableHookArgs") -> None:
        nonlocal giving_up
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)
            return
        giving_up = True  # what comes before this has returned would be lost as well
        number: int = signal.SIGINT
        if isinstance(unraisable.exc_value, Terminated):
            number = unraisable.exc_value.number
            signal.signal(number, end)
        _send_soon(number)
        giving_up = False

    hook = sys.unraisablehook
    sys.unraisablehook = lost
    before: dict[int, Any] = {}
    theirs: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        theirs[signal.SIGHUP] = signal.SIG_DFL
    for number, handler in theirs.items():
        if signal.getsignal(number) == handler:
            with suppress(ValueError):  # not the main thread
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _send_soon(number: int) -> None:
    """Send this process's main thread a signal from another thread, a moment later."""

    def send() -> None:
        time.sleep(0.002)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    _thread.start_new_thread(send, ())


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The signal that an exception tells of, None for any other.

    One that comes inside a compiled function which had returned already is wrapped by the interpreter:
    `SystemError: … returned a result with an exception set`, raised from it.
    """
    if isinstance(error, KeyboardInterrupt):
        return error
    if isinstance(error, SystemError) and isinstance(error.__cause__, KeyboardInterrupt):
        return error.__cause__
    return None


def exit_code(error: BaseException, root: Any, command: Any = None, arguments: Sequence[str] = ()) -> int:
    """Say on standard error what happened, in one line, and return the exit code.

    Args:
        error: what a command raised.
        root: Click's group of all commands.
        command: the command at hand, None if none was reached.
        arguments: the command line.
    """
    if isinstance(error, typer.Exit):
        return int(error.exit_code)
    if isinstance(error, ReaderLeftError | BrokenPipeError):
        return 0
    if os.environ.get(DEBUG, "0") not in ("", "0"):
        traceback.print_exception(error)
    interrupted = error if isinstance(error, typer.Abort) else interruption(error)
    if interrupted is not None:
        return _interrupted(interrupted, command)
    line, code = _explained(error, root, command, arguments)
    print(f"Error: {one_line(line)}", file=sys.stderr)
    return code


def _interrupted(error: BaseException, command: Any) -> int:
    number = error.number if isinstance(error, Terminated) else signal.SIGINT
    word = "Interrupted" if number == signal.SIGINT else "Terminated"
    after = afterwards.get() or _GOES_ON.get(getattr(command, "name", None) or "")
    # A terminal shows ^C: the line begins below it.
    start = "\n" if number == signal.SIGINT and sys.stderr.isatty() else ""
    print(f"{start}{word}{f'; {after}' if after else ''}.", file=sys.stderr)
    return 128 + number


def _explained(error: BaseException, root: Any, command: Any, arguments: Sequence[str]) -> tuple[str, int]:
    """The line and the exit code of an error."""
    if isinstance(error, UsageError):
        return explain(error, arguments), 2
    if isinstance(error, RecsysError):
        return for_command(str(error), command, root), 2
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return "out of memory; close other programs, or take less at a time", 2
    if isinstance(error, OSError):
        return _explain_os_error(error), 2
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return (
        f"this is a fault of recsys, not of yours ({said}); set {DEBUG}=1 for the traceback and report it",
        1,
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or polars found no memory: neither raises MemoryError."""
    if type(error).__name__ in ("OutOfMemoryError", "_ArrayMemoryError"):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def _explain_os_error(error: OSError) -> str:
    """A fault of the system that no function named better."""
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO):
        return str(output_error(error))
    where = f"{error.filename}: " if error.filename is not None else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full; free some space and run again"
    return f"{where}{error.strerror or error}; see to the file or folder and run again"
