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
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recsys-lines", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record aside."""
        if len(self._waiting) >= self._room:
            self._dropped += 1
        else:
            self._waiting.append(record)

    def flush(self) -> None:
        """Write what waits now; a log that cannot be written is no reason to stop answering."""
        with self._writing:
            dropped, self._dropped = self._dropped, 0
            records = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if dropped:
                text = f"{dropped} lines were dropped: nobody reads the log"
                records.append(logging.LogRecord("recsys.serving", logging.WARNING, "", 0, text, (), None))
            if not records:
                return
            try:
                self._stream.write("".join([self.format(record) + "\n" for record in records]))
                self._stream.flush()
            except (OSError, ValueError):
                return

    def close(self) -> None:
        """Write what waits and end the thread."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self.flush()
        super().close()

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self.flush()


def flush_lines(log: logging.Logger) -> None:
    """Write what a log's handlers have put aside; for a process that ends without more ado."""
    for handler in log.handlers:
        handler.flush()
