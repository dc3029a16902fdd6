"""Lines of the log, written by a thread of its own, some at a time.

Each write lets go of the interpreter, and the event loop then waits until the thread that computes lets go of
it in turn: a line for each request would cost every request that wait. A reader that does not read would even
hold the service up.
"""

import logging
import threading
from collections import deque
from typing import TextIO

SECONDS = 0.1
"""Between two writes."""
END_SECONDS = 1.0
"""That somebody waits for the lines to be written: at an end nobody may read them any more."""
ROOM = 100_000
"""Lines that wait at most; more are dropped, and a line says how many."""


class LineWriter(logging.Handler):
    """A handler that puts records aside and writes them a moment later.

    Args:
        stream: that gets the lines.
        room: lines that wait at most.
    """

    def __init__(self, stream: TextIO, room: int = ROOM) -> None:
        super().__init__()
        self._stream, self._room = stream, room
        self._waiting: deque[logging.LogRecord] = deque()
        self._dropped = 0
        self._asked: deque[threading.Event] = deque()
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="recsys-lines", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record aside."""
        if len(self._waiting) >= self._room:
            self._dropped += 1
        else:
            self._waiting.append(record)

    def flush(self) -> None:
        """Have what waits written now; returns after `END_SECONDS` if nobody reads."""
        if not self._thread.is_alive():
            self._write()
            return
        written = threading.Event()
        self._asked.append(written)
        self._wanted.set()
        written.wait(END_SECONDS)

    def close(self) -> None:
        """Have what waits written and end the thread; returns after `END_SECONDS` if nobody reads."""
        self._ended = True
        self._wanted.set()
        self._thread.join(END_SECONDS)
        super().close()

    def _run(self) -> None:
        ended = False
        while not ended:
            self._wanted.wait(SECONDS)
            self._wanted.clear()
            ended = self._ended  # what was put aside before the end is written
            asked = [self._asked.popleft() for _ in range(len(self._asked))]
            self._write()
            for written in asked:
                written.set()

    def _write(self) -> None:
        """Write what waits; a log that cannot be written is no reason to stop answering."""
        dropped, self._dropped = self._dropped, 0
        records = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if dropped:
            text = f"{dropped} lines were dropped: nobody reads the log"
            records.append(logging.LogRecord("recsys.serving", logging.WARNING, "", 0, text, (), None))
        if not records:
            return
        try:
            self._stream.write("".join([self._line(record) for record in records]))
            self._stream.flush()
        except (OSError, ValueError):
            return

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + "\n"
        except Exception:  # one record must not take the others with it, nor the thread
            self.handleError(record)
            return ""


def flush_lines(log: logging.Logger) -> None:
    """Have a log's handlers write what they have put aside; for a process that ends without more ado."""
    for handler in log.handlers:
        handler.flush()
